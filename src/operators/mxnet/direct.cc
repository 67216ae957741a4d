// Calls of operators without MXNet's extension interface.
//
// On the way to an extension's kernel MXNet copies every attribute into maps of strings and every
// array into tensors, looks the kernel up by the device's name and asks a pool for its workspace,
// which takes longer than small kernels do.  The way begins at a function that MXNet keeps for each
// operator; here ours takes its place, which reads the attributes and arrays where they are.  What
// it does not understand (sparse arrays, refused calls, large workspaces, many axes) goes to the
// function that stood there before, which says what is wrong.

#include "direct.h"

#include <stdlib.h>
#include <string.h>

#include <atomic>

#include "../common/registry.h"
#include "entry.h"

namespace d2l {
namespace {

constexpr int64_t kMostWorkspace = 1 << 20;  // MXNet keeps larger ones

struct Direct {
  Entry entry;
  DirectFunctions mxnet;
  Compute original;
};

std::atomic<bool> on{true};
std::atomic<int64_t> num_direct;

// A string for a function of MXNet, which only reads it.
struct AttributeName {
  explicit AttributeName(const char* name) : length(strlen(name)), capacity(length) {
    strncpy(text, name, sizeof text - 1);
  }
  OldString string() const { return {text}; }

  size_t length, capacity;
  int64_t owners = -1;
  char text[32] = {};
};

template <class Value>
OpMap<Value>* map_of(const DirectFunctions& mxnet, const char* name) {
  const AttributeName key(name);
  const Any* any = mxnet.attr_map(key.string());
  return any ? static_cast<OpMap<Value>*>(any->held) : nullptr;
}

// A thread's own, which stays small.
struct Workspace {
  ~Workspace() { free(block); }

  void* of(int64_t bytes) {
    if (bytes > size) {
      free(block);
      block = aligned_alloc(64, (bytes + 63) & ~int64_t{63});
      size = block ? bytes : 0;
    }
    return block;
  }

  void* block = nullptr;
  int64_t size = 0;
};

thread_local Workspace workspace;

bool is_onednn(const DirectFunctions& mxnet, const Array& array) {
  return mxnet.is_onednn && array.chunk && mxnet.is_onednn(array.chunk.get());
}

// Arrays, where those in oneDNN's layout are replaced by copies in the usual one.  MXNet's function
// would change the layout itself, and wait for that in the thread that is to do it.
class Usual {
 public:
  explicit Usual(int64_t count) : bytes_(count * sizeof(Array)), owned_(count) {
    range_[0] = reinterpret_cast<Array*>(bytes_.data());
    range_[1] = range_[2] = range_[0] + count;
  }
  Usual(const Usual&) = delete;
  Usual& operator=(const Usual&) = delete;
  ~Usual() {
    for (size_t i = 0; i < owned_.size(); ++i) {
      if (owned_[i]) owned_[i](range_[0] + i);
    }
  }

  const std::vector<Array>& take(const DirectFunctions& mxnet, const std::vector<Array>& arrays) {
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (is_onednn(mxnet, arrays[i])) {
        mxnet.reordered(range_[0] + i, &arrays[i]);
        owned_[i] = mxnet.destroy;
      } else {
        void* place = range_[0] + i;
        memcpy(place, static_cast<const void*>(&arrays[i]), sizeof(Array));  // only lent
      }
    }
    const void* vector = range_;
    return *static_cast<const std::vector<Array>*>(vector);
  }

 private:
  std::vector<char> bytes_;
  Array* range_[3];  // begin, end and end of the room, of which a vector consists
  std::vector<void (*)(Array*)> owned_;
};

bool read_attributes(const NodeAttrs& attrs, Attr* list) {
  if (attrs.count > kMostAttrs) return false;
  for (const NodeAttrs::Item* item = attrs.items; item; item = item->next) {
    *list++ = {item->key.text, item->value.text};
  }
  return true;
}

bool read_array(const DirectFunctions& mxnet, const Array& array, Tensor* tensor) {
  const int ndim = array.shape.ndim;
  if (array.storage_type != 0 || !array.chunk || ndim < 0 || ndim > kMaxDims) return false;
  if (array.chunk->data) {
    tensor->data = array.chunk->data + array.byte_offset;
  } else if (mxnet.data(const_cast<Array*>(&array), &tensor->data)) {  // which allocates it
    return false;
  }
  tensor->dtype = static_cast<DType>(array.dtype);
  tensor->shape.ndim = ndim;
  for (int i = 0; i < ndim; ++i) tensor->shape.dim[i] = array.shape.dims()[i];
  return true;
}

bool read_arrays(const DirectFunctions& mxnet, const std::vector<Array>& arrays, Tensor* tensors) {
  for (const Array& array : arrays) {
    if (!read_array(mxnet, array, tensors++)) return false;
  }
  return true;
}

// False, with nothing done, if it has to go the other way.
bool run(const Direct& direct, const NodeAttrs& attrs, const std::vector<Array>& inputs,
         const std::vector<Array>& outputs) {
  Attr list[kMostAttrs];
  if (!read_attributes(attrs, list)) return false;
  Error error;
  error.set = false;
  KernelCall call(direct.entry, list, static_cast<int>(attrs.count),
                  static_cast<int64_t>(inputs.size()), &error);
  if (error.set || static_cast<int64_t>(outputs.size()) != call.num_outputs()) return false;
  for (const Array& array : outputs) {
    if (is_onednn(direct.mxnet, array)) return false;
  }
  if (!read_arrays(direct.mxnet, inputs, call.in) ||
      !read_arrays(direct.mxnet, outputs, call.out)) {
    return false;
  }
  call.arrange();
  const int64_t bytes = call.workspace();
  if (bytes > kMostWorkspace) return false;
  void* block = workspace.of(bytes);
  if (bytes > 0 && !block) return false;
  call.run(block, nullptr);
  num_direct.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void compute(const Direct& direct, const NodeAttrs& attrs, const Context& context,
             const std::vector<Array>& inputs, const std::vector<int>& requests,
             const std::vector<Array>& outputs) {
  for (const Array& array : inputs) {
    if (!is_onednn(direct.mxnet, array)) continue;
    Usual usual(static_cast<int64_t>(inputs.size()));
    const std::vector<Array>& taken = usual.take(direct.mxnet, inputs);
    if (!on || !run(direct, attrs, taken, outputs)) {
      direct.original(attrs, context, taken, requests, outputs);
    }
    return;
  }
  if (!on || !run(direct, attrs, inputs, outputs)) {
    direct.original(attrs, context, inputs, requests, outputs);
  }
}

// The place of an operator's value, null if MXNet has none where we take it to be.
template <class Value>
Value* place_of(const DirectFunctions& mxnet, const char* name, const void* handle) {
  const uint32_t index = static_cast<const Operator*>(handle)->index;
  OpMap<Value>* map = map_of<Value>(mxnet, name);
  if (!map || index >= map->values.size()) return nullptr;
  std::pair<Value, int>& value = map->values[index];
  return value.second != 0 && value.first ? &value.first : nullptr;
}

// MXNet need not look for arrays in oneDNN's layout, for which it would copy all of them.
void take_onednn(const DirectFunctions& mxnet, const void* handle) {
  const uint32_t index = static_cast<const Operator*>(handle)->index;
  OpMap<bool>* map = map_of<bool>(mxnet, "TIsMKLDNN");
  if (!map) return;
  if (map->values.size() <= index) map->values.resize(index + 1);
  map->values[index] = {true, 1};
}

// Backward does not read the gradients of outputs that are only saved for it, and nobody else has
// those outputs.  MXNet would make arrays of zeros for them, each with an operator of its own.
void spare_zeros(Gradient* place, int num_results) {
  const Gradient original = *place;
  *place = [original, num_results](const std::shared_ptr<void>& node,
                                   const std::vector<NodeEntry>& out_grads) {
    std::vector<NodeEntry> used = out_grads;
    for (size_t i = num_results; i < used.size(); ++i) used[i] = used[0];
    return original(node, used);
  };
}

}  // namespace
}  // namespace d2l

int d2l_direct_install(const d2l::DirectFunctions* functions, const char* name, void* forward,
                       void* backward) {
  d2l::Error error = {};
  const char* target = d2l::active_target(&error);
  const d2l::Op* op = target ? d2l::find_op(name, target) : nullptr;
  if (!op || op->updated || !functions->attr_map || !functions->data) return 1;
  if (functions->is_onednn && (!functions->reordered || !functions->destroy)) return 1;
  const void* handles[] = {forward, backward};
  d2l::Compute* places[2];
  for (int i = 0; i < 2; ++i) {
    places[i] = d2l::place_of<d2l::Compute>(*functions, "FComputeEx<cpu>", handles[i]);
  }
  auto* gradient = d2l::place_of<d2l::Gradient>(*functions, "FGradient", forward);
  if (!places[0] || !places[1] || !gradient) return 1;
  for (int i = 0; i < 2; ++i) {
    // For as long as the process lives: MXNet keeps its operators as long.
    const d2l::Direct* direct = new d2l::Direct{{op, op, i == 1}, *functions, *places[i]};
    d2l::take_onednn(*functions, handles[i]);
    *places[i] = [direct](const d2l::NodeAttrs& attrs, const d2l::Context& context,
                          const std::vector<d2l::Array>& inputs, const std::vector<int>& requests,
                          const std::vector<d2l::Array>& outputs) {
      d2l::compute(*direct, attrs, context, inputs, requests, outputs);
    };
  }
  if (op->num_results < op->num_outputs) d2l::spare_zeros(gradient, op->num_results);
  return 0;
}

void d2l_direct_set(int value) { d2l::on = value != 0; }

int64_t d2l_direct_count() { return d2l::num_direct; }
