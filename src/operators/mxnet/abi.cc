// MXNet's extension interface, as MXNet 1.9.1 looks it up by name in a loaded library.
//
// MXNet ships lib_api.h and lib_api.cc to be compiled into an extension.  They wrap the plain C
// functions below in C++ classes, build a map of strings at every call, and export names of
// namespace mxnet::ext that clash with libmxnet's own.  Here the C functions are written directly
// over our operator table; unused.cc has those for what we do not register.  What they take
// stands in lib_api.h of 1.9.1 (MX_LIBRARY_VERSION 11); a test compiles both files against that
// header, so a wrong declaration does not compile.
//
// The function pointers that MXNet gets here and hands back (see types.h) point at Entry, not code.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/registry.h"
#include "entry.h"
#include "layout.h"
#include "types.h"

namespace d2l {

void (*reorder_to_default)(Chunk*);

namespace {

constexpr int kLibraryVersion = 11;
constexpr int kMxnetVersion = 10901;
constexpr int kMaxEntries = 128;

// One operator: its kernels for "cpu" and, where CUDA was built, "gpu".
struct Registered {
  char name[64];
  Entry forward[2], backward[2];
  fcomp_t forward_pointers[2], backward_pointers[2];
  int devices;
};

const char* kDevices[] = {"cpu", "gpu"};
Registered registered[kMaxEntries];
int num_registered;

// Each thread has its own message, cleared when a call comes in.
thread_local Error message;

Error* fresh_message() {
  message.set = false;
  return &message;
}

template <class Pointer>
Pointer opaque(const Entry* entry) {
  return reinterpret_cast<Pointer>(const_cast<Entry*>(entry));
}

template <class Pointer>
const Entry& entry_of(Pointer pointer) {
  return *reinterpret_cast<const Entry*>(pointer);
}

bool add(const Op* op) {
  if (num_registered == kMaxEntries) return false;
  Registered* r = &registered[num_registered++];
  // The prefix makes MXNet treat arrays and symbols as its NumPy ones.
  snprintf(r->name, sizeof r->name, "_npx_d2l_%s", op->name);
  const Op* kernels[] = {op, find_op(op->name, "cuda")};
  r->devices = kernels[1] ? 2 : 1;
  for (int i = 0; i < r->devices; ++i) {
    r->forward[i] = {op, kernels[i], false};
    r->backward[i] = {op, kernels[i], true};
    r->forward_pointers[i] = opaque<fcomp_t>(&r->forward[i]);
    r->backward_pointers[i] = opaque<fcomp_t>(&r->backward[i]);
  }
  return true;
}

// False if MXNet's shape has more axes than ours can hold.  Inside MXNet what is not known is -1,
// in its legacy mode (where users write 0) as well.
bool shape_from(const unsigned* dims, int ndim, Shape* shape) {
  if (ndim > kMaxDims) return false;
  shape->ndim = ndim;
  for (int i = 0; i < ndim; ++i) shape->dim[i] = static_cast<int>(dims[i]);
  return true;
}

bool known(const Shape& shape) {
  for (int i = 0; i < shape.ndim; ++i) {
    if (shape.dim[i] < 0) return false;
  }
  return shape.ndim >= 0;
}

// MXNet frees what is given to it here with _opCallFree.
void shapes_to(const Shape* shapes, int count, unsigned*** dims, int** ndims) {
  *ndims = static_cast<int*>(malloc(count * sizeof(int)));
  *dims = static_cast<unsigned**>(malloc(count * sizeof(unsigned*)));
  for (int i = 0; i < count; ++i) {
    (*ndims)[i] = shapes[i].ndim;
    (*dims)[i] = static_cast<unsigned*>(malloc((shapes[i].ndim + 1) * sizeof(unsigned)));
    for (int j = 0; j < shapes[i].ndim; ++j) {
      (*dims)[i][j] = static_cast<unsigned>(shapes[i].dim[j]);
    }
  }
}

bool tensors_from(const int64_t** shapes, const int* ndims, void** pointers, const int* dtypes,
                  const int* storage, int count, const char* op, Tensor* tensors, Error* error) {
  for (int i = 0; i < count && !error->set; ++i) {
    if (storage[i] != 0) fail(error, "%s: sparse arrays are not supported", op);
    if (ndims[i] > kMaxDims) fail(error, "%s: at most %d axes are supported", op, kMaxDims);
    if (error->set) break;
    tensors[i].data = pointers[i];
    tensors[i].dtype = static_cast<DType>(dtypes[i]);
    tensors[i].shape.ndim = ndims[i];
    for (int j = 0; j < ndims[i]; ++j) tensors[i].shape.dim[j] = shapes[i][j];
  }
  return !error->set;
}

constexpr const char* kChunks = "__chunks__";

// A convolution that predicts leaves its weights in oneDNN's layout.  MXNet hands a copy of such an
// array to an extension, and what the extension writes there is lost.  So a call that updates
// arrays says which Chunks the first of them have; a copy lies outside.  The array itself is then
// brought to the usual layout, which we may do, since MXNet's engine gives us the right to write.
void update_in_place(const char* text, int64_t count, Tensor* tensors) {
  for (int64_t i = 0; i < count && reorder_to_default; ++i, ++text) {
    char* end = nullptr;
    Chunk* chunk = reinterpret_cast<Chunk*>(strtoull(text, &end, 16));
    text = end;
    const char* given = static_cast<char*>(tensors[i].data);
    if (given >= chunk->data && given < chunk->data + chunk->size) continue;
    if (chunk->size == 0) continue;
    reorder_to_default(chunk);
    tensors[i].data = chunk->data;
  }
}

// Attributes arrive as two arrays of strings.
struct Attrs {
  Attrs(const char* const* keys, const char* const* values, int n) : count(n) {
    for (int i = 0; i < n && i < kMostAttrs; ++i) list[i] = {keys[i], values[i]};
  }
  Attr list[kMostAttrs];
  int count;  // more than there is room for are refused by ParamReader::finish

  const char* find(const char* key) const {
    for (int i = 0; i < count && i < kMostAttrs; ++i) {
      if (strcmp(list[i].key, key) == 0) return list[i].value;
    }
    return nullptr;
  }
};

Params params_of(const Op* rules, const Attrs& attrs, Error* error) {
  return Params(rules, attrs.list, attrs.count, error);
}

}  // namespace
}  // namespace d2l

using d2l::Attrs;
using d2l::Entry;
using d2l::Error;
using d2l::fail;
using d2l::fresh_message;
using d2l::Params;
using d2l::Scratch;
using d2l::Shape;
using d2l::Tensor;

extern "C" {

int _opVersion() { return d2l::kLibraryVersion; }

MXReturnValue initialize(int version) {
  constexpr MXReturnValue kFailure = MXReturnValue(0), kSuccess = MXReturnValue(1);
  Error* error = fresh_message();
  if (version != d2l::kMxnetVersion) {
    fail(error, "d2l's operators need MXNet 1.9.1 (10901), this is %d", version);
    return kFailure;
  }
  const char* target = d2l::active_target(error);
  if (!target) return kFailure;
  for (int i = 0; i < d2l::op_count(); ++i) {
    if (strcmp(d2l::op_at(i)->target, target) == 0 && !d2l::add(d2l::op_at(i))) {
      fail(error, "more than %d operators", d2l::kMaxEntries);
      return kFailure;
    }
  }
  return kSuccess;
}

int _msgSize() { return d2l::message.set ? 1 : 0; }

void _msgGet(int, const char** text) { *text = d2l::message.text; }

int _opRegSize() { return d2l::num_registered; }

void _opRegGet(int index, const char** name, int* is_subgraph_op, const char*** forward_devices,
               fcomp_t** forward, int* forward_count, const char*** backward_devices,
               fcomp_t** backward, int* backward_count, const char*** create_devices,
               createOpState_t** create, int* create_count, parseAttrs_t* parse, inferType_t* type,
               inferSType_t* storage_type, inferShape_t* shape, mutateInputs_t* mutate) {
  d2l::Registered* r = &d2l::registered[index];
  *name = r->name;
  *is_subgraph_op = 0;
  *forward_devices = *backward_devices = *create_devices = d2l::kDevices;
  *forward = r->forward_pointers;
  *backward = r->backward_pointers;
  *forward_count = r->devices;
  *backward_count = r->forward[0].rules->backward ? r->devices : 0;
  *create = nullptr;
  *create_count = 0;
  *parse = d2l::opaque<parseAttrs_t>(&r->forward[0]);
  *type = d2l::opaque<inferType_t>(&r->forward[0]);
  *shape = d2l::opaque<inferShape_t>(&r->forward[0]);
  *storage_type = nullptr;
  *mutate = r->forward[0].rules->updated ? d2l::opaque<mutateInputs_t>(&r->forward[0]) : nullptr;
}

void _opCallFree(void* pointer) { free(pointer); }

int _opCallParseAttrs(parseAttrs_t function, const char* const* keys, const char* const* values,
                      int count, int* num_inputs, int* num_outputs) {
  const Entry& entry = d2l::entry_of(function);
  Error* error = fresh_message();
  const Params params = d2l::params_of(entry.rules, Attrs(keys, values, count), error);
  *num_inputs = error->set ? 0 : d2l::count_given(*entry.rules, params.present);
  *num_outputs = entry.rules->num_outputs;
  return !error->set;
}

int _opCallInferShape(inferShape_t function, const char* const* keys, const char* const* values,
                      int count, unsigned** in_dims, int* in_ndims, int num_inputs,
                      unsigned*** new_in_dims, int** new_in_ndims, unsigned*** out_dims,
                      int** out_ndims, int num_outputs) {
  const d2l::Op* rules = d2l::entry_of(function).rules;
  Error* error = fresh_message();
  const Params params = d2l::params_of(rules, Attrs(keys, values, count), error);
  if (!error->set) d2l::expect_inputs(num_inputs, *rules, params.present, error);
  if (error->set) return 0;
  Scratch<Shape> inputs(d2l::count_all(*rules, params.present));
  Shape outputs[d2l::kMaxTensors];
  for (int i = 0, next = 0; i < rules->num_inputs; ++i) {
    if ((params.present.given >> i & 1) == 0) continue;
    for (int64_t j = d2l::width_of(*rules, i, params.present.length); j > 0; --j, ++next) {
      if (!d2l::shape_from(in_dims[next], in_ndims[next], &inputs[next])) {
        fail(error, "%s: %s must have at most %d axes, got %d", rules->name, rules->inputs[i],
             d2l::kMaxDims, in_ndims[next]);
      }
    }
  }
  if (error->set) return 0;
  d2l::spread_given<Shape>(inputs, *rules, params.present, d2l::kAbsentTensor.shape);
  // MXNet cannot take "not known yet" from an extension, so this must be an error.
  if (!error->set && inputs[0].ndim < 0) {
    fail(error, "%s: the shape of %s must be known", rules->name, rules->inputs[0]);
  }
  if (!error->set) rules->infer_shape(params.bytes, inputs, outputs, error);
  for (int i = 0, at = 0; i < rules->num_inputs && !error->set; ++i) {
    for (int64_t j = d2l::width_of(*rules, i, params.present.length); j > 0; --j, ++at) {
      if (!d2l::given(inputs[at]) || d2l::known(inputs[at])) continue;
      fail(error, "%s: the shape of %s must be known, got %s", rules->name, rules->inputs[i],
           d2l::ShapeText(inputs[at]).text);
    }
  }
  if (error->set) return 0;
  d2l::gather_given<Shape>(inputs, *rules, params.present);
  d2l::shapes_to(inputs, num_inputs, new_in_dims, new_in_ndims);
  d2l::shapes_to(outputs, num_outputs, out_dims, out_ndims);
  return 1;
}

int _opCallInferType(inferType_t function, const char* const* keys, const char* const* values,
                     int count, int* in_types, int num_inputs, int* out_types, int num_outputs) {
  const d2l::Op* rules = d2l::entry_of(function).rules;
  Error* error = fresh_message();
  const Params params = d2l::params_of(rules, Attrs(keys, values, count), error);
  if (!error->set) d2l::expect_inputs(num_inputs, *rules, params.present, error);
  if (error->set) return 0;
  Scratch<d2l::DType> inputs(d2l::count_all(*rules, params.present));
  d2l::DType outputs[d2l::kMaxTensors];
  for (int i = 0; i < num_inputs; ++i) inputs[i] = static_cast<d2l::DType>(in_types[i]);
  d2l::spread_given<d2l::DType>(inputs, *rules, params.present, d2l::DType::kAbsent);
  rules->infer_dtype(params.bytes, inputs, outputs, error);
  if (error->set) return 0;
  d2l::gather_given<d2l::DType>(inputs, *rules, params.present);
  for (int i = 0; i < num_inputs; ++i) in_types[i] = static_cast<int>(inputs[i]);
  for (int i = 0; i < num_outputs; ++i) out_types[i] = static_cast<int>(outputs[i]);
  return 1;
}

// What MXNet gets here it frees with _opCallFree.
int _opCallMutateInputs(mutateInputs_t function, const char* const* keys, const char* const* values,
                        int count, int** indices, int* num_indices) {
  const d2l::Op* rules = d2l::entry_of(function).rules;
  Error* error = fresh_message();
  const Params params = d2l::params_of(rules, Attrs(keys, values, count), error);
  if (error->set) return 0;
  *indices =
      static_cast<int*>(malloc((d2l::count_given(*rules, params.present) + 1) * sizeof(int)));
  *num_indices = 0;
  for (int i = 0, at = 0; i < rules->num_inputs; ++i) {
    if ((params.present.given >> i & 1) == 0) continue;
    for (int64_t j = d2l::width_of(*rules, i, params.present.length); j > 0; --j, ++at) {
      if (rules->updated >> i & 1) (*indices)[(*num_indices)++] = at;
    }
  }
  return 1;
}

// The interface does not say whether to write or to add; we write (see d2l/ops/_grad_req.py).
int _opCallFCompute(fcomp_t function, const char* const* keys, const char* const* values, int count,
                    const int64_t** in_shapes, int* in_ndims, void** in_data, int* in_types,
                    size_t*, const char**, int*, int num_inputs, const int64_t** out_shapes,
                    int* out_ndims, void** out_data, int* out_types, size_t*, const char**, int*,
                    int num_outputs, xpu_malloc_t cpu_malloc, void* cpu_alloc,
                    xpu_malloc_t gpu_malloc, void* gpu_alloc, void* stream, sparse_malloc_t, void*,
                    int* in_storage, int* out_storage, void**, void**, void**, void**, int64_t*,
                    int64_t*, int64_t*, int64_t*, void*, void*) {
  const Entry& entry = d2l::entry_of(function);
  const d2l::Op* rules = entry.rules;
  Error* error = fresh_message();
  const Attrs attrs(keys, values, count);
  d2l::KernelCall call(entry, attrs.list, attrs.count, num_inputs, error);
  if (error->set ||
      !d2l::tensors_from(in_shapes, in_ndims, in_data, in_types, in_storage, num_inputs,
                         rules->name, call.in, error) ||
      !d2l::tensors_from(out_shapes, out_ndims, out_data, out_types, out_storage, num_outputs,
                         rules->name, call.out, error)) {
    return 0;
  }
  const char* chunks = rules->updated ? attrs.find(d2l::kChunks) : nullptr;
  if (chunks) d2l::update_in_place(chunks, call.params.present.length, call.in);
  call.arrange();
  // One request a call: a second one may move or reuse the first one's memory.
  const int64_t bytes = call.workspace();
  if (bytes > INT32_MAX - 64) {
    fail(error, "%s: the arrays are too large, the workspace would need %lld bytes", rules->name,
         static_cast<long long>(bytes));
    return 0;
  }
  uintptr_t workspace = 0;
  if (bytes > 0) {
    const bool gpu = entry.op != rules;
    void* block = gpu ? gpu_malloc(gpu_alloc, static_cast<int>(bytes) + 64)
                      : cpu_malloc(cpu_alloc, static_cast<int>(bytes) + 64);
    workspace = (reinterpret_cast<uintptr_t>(block) + 63) & ~uintptr_t{63};
  }
  const int status = call.run(reinterpret_cast<void*>(workspace), stream);
  if (status) fail(error, "%s: CUDA error %d", rules->name, status);
  return status == 0;
}

// The attribute __chunks__ for arrays on a CPU: 17 characters for each handle, and a zero.
void d2l_chunks(void** const* handles, int count, char* text) {
  for (int i = 0; i < count; ++i, text += 17) {
    snprintf(text, 18, "%016llx,",
             static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(*handles[i])));
  }
}

// Once, when the library is loaded.
void d2l_set_reorder(void (*function)(d2l::Chunk*)) { d2l::reorder_to_default = function; }

}  // extern "C"
