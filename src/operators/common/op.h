// What an operator is: rules (attributes, dtypes, shapes) and kernels, as plain functions.
//
// A definition is a struct; see layer_norm.cc, the one to copy.  D2L_REGISTER_OP(Definition) turns
// it into an Op for the instruction set being compiled; Op holds only plain function pointers, so
// that neither rules nor kernels know MXNet, and every target (v2, v3, v4, cuda) has one table.
#ifndef D2L_COMMON_OP_H_
#define D2L_COMMON_OP_H_

#include <type_traits>

#include "half.h"
#include "params.h"

#define D2L_STRING_(text) #text
#define D2L_STRING(text) D2L_STRING_(text)

namespace d2l {

constexpr int kMaxTensors = 16;  // names of inputs and outputs of one operator, each
constexpr int kMaxListLength = 1 << 20;
constexpr int kMaxParamBytes = 256;

// What a kernel gets besides its tensors.
struct Resources {
  void* workspace;  // as many bytes as Op::workspace asked for, aligned to 64
  void* stream;     // cudaStream_t, null on a CPU
};

// forward:  inputs -> outputs.  backward: output gradients, inputs, outputs -> input gradients.
struct Call {
  const void* params;
  const Tensor* grad_outputs;  // null in forward
  const Tensor* inputs;
  const Tensor* outputs;
  const Tensor* grad_inputs;  // null in forward
};

// A kernel returns 0, or CUDA's error number.
typedef int (*Kernel)(const Call& call, const Resources& resources);

// The inputs of one call: which of them it has, and how many arrays stand in each list.
struct Present {
  uint32_t given;  // bit i is set where the call has input i
  int64_t length;
};

struct Op {
  const char* name;
  const char* target;  // "v2", "v3", "v4" or "cuda"
  const char* const* inputs;
  const char* const* outputs;
  int num_inputs;
  int num_required;  // the inputs after these may be absent
  int num_outputs;
  int num_results;  // the first outputs; the rest is saved for backward, which ignores its gradient
  uint32_t lists;   // bit i is set where input i is a list of arrays, all lists of equal length
  uint32_t updated;  // bit i is set where the kernel changes input i in place
  void (*parse)(const Attr* attrs, int count, void* params, Present* present, Error* error);
  void (*infer_dtype)(const void* params, DType* inputs, DType* outputs, Error* error);
  void (*infer_shape)(const void* params, Shape* inputs, Shape* outputs, Error* error);
  int64_t (*workspace)(const void* params, const Tensor* inputs, bool backward);
  Kernel forward;
  Kernel backward;  // null for an operator that updates its inputs
};

// How many arrays input i is.
inline int64_t width_of(const Op& op, int i, int64_t length) {
  return op.lists >> i & 1 ? length : 1;
}

// The number of arrays in a call that lacks no optional input, and in this one.
inline int64_t count_all(const Op& op, const Present& present) {
  int64_t count = 0;
  for (int i = 0; i < op.num_inputs; ++i) count += width_of(op, i, present.length);
  return count;
}

inline int64_t count_given(const Op& op, const Present& present) {
  int64_t count = 0;
  for (int i = 0; i < op.num_inputs; ++i) {
    if (present.given >> i & 1) count += width_of(op, i, present.length);
  }
  return count;
}

// MXNet knows only the inputs that are given.  Spread puts what belongs to them into the places
// that they have among all inputs, where rules and kernels look for them: the arrays of a list
// beside each other, those of an absent one all absent.  Gather undoes it.
template <class T>
inline void spread_given(T* items, const Op& op, const Present& present, const T& absent) {
  int64_t next = count_all(op, present), last = count_given(op, present);
  for (int i = op.num_inputs - 1; i >= 0; --i) {
    for (int64_t j = width_of(op, i, present.length); j > 0; --j) {
      items[--next] = present.given >> i & 1 ? items[--last] : absent;
    }
  }
}

template <class T>
inline void gather_given(T* items, const Op& op, const Present& present) {
  int64_t from = 0, to = 0;
  for (int i = 0; i < op.num_inputs; ++i) {
    for (int64_t j = width_of(op, i, present.length); j > 0; --j, ++from) {
      if (present.given >> i & 1) items[to++] = items[from];
    }
  }
}

// A CUDA twin has only kernels; the rules stay those of the CPU's definition.
void register_op(const Op& op);

// Rules that many operators share; all of them say what is wrong in the words of the caller.

// Unknown sizes of *shape become those of want; a known one that differs fails.
void expect_shape(Shape* shape, const Shape& want, const char* op, const char* argument,
                  Error* error);
// At least low axes.
bool expect_ndim(const Shape& shape, int low, const char* op, const char* argument, Error* error);
// All of dtypes[0 .. count) equal and float16, float32 or float64; unknown ones are filled in.
void expect_same_float(DType* dtypes, const char* const* names, int count, const char* op,
                       Error* error);
// Any integer or floating-point dtype, of lengths and indices; an unknown one becomes float32.
void expect_number(DType* dtype, const char* op, const char* argument, Error* error);

// Zeros: the gradient of an input that has none, if it is given.
void clear(const Tensor& tensor);

inline namespace D2L_ISA {

// A definition may say how many of its inputs every call must have; otherwise it is all of them.
template <class Def>
constexpr int num_required(decltype(Def::kRequired)*) {
  return Def::kRequired;
}
template <class Def>
constexpr int num_required(...) {
  return sizeof(Def::kInputs) / sizeof(Def::kInputs[0]);
}

// One with several results says how many.
template <class Def>
constexpr int num_results(decltype(Def::kResults)*) {
  return Def::kResults;
}
template <class Def>
constexpr int num_results(...) {
  return 1;
}

// One may also say which inputs are lists, with the attribute num_weights for their length, which
// Params then has; and which of its inputs the kernel changes in place: such an operator has no
// backward.
template <class Def>
constexpr uint32_t lists_of(decltype(Def::kLists)*) {
  return Def::kLists;
}
template <class Def>
constexpr uint32_t lists_of(...) {
  return 0;
}
template <class Def>
constexpr uint32_t updated_by(decltype(Def::kUpdated)*) {
  return Def::kUpdated;
}
template <class Def>
constexpr uint32_t updated_by(...) {
  return 0;
}

template <class Params>
inline auto list_length(ParamReader* reader, Params* params, int) -> decltype(params->num_weights) {
  reader->integer("num_weights", &params->num_weights, 1, kMaxListLength);
  return params->num_weights;
}
template <class Params>
inline int64_t list_length(ParamReader*, Params*, long) {
  return 1;
}

// Kernels are made for the dtype of the first input or, where a definition has kByOutput, for that
// of the output.
template <class Def>
inline DType kernel_dtype(const Call& call, decltype(Def::kByOutput)*) {
  return Def::kByOutput ? call.outputs[0].dtype : call.inputs[0].dtype;
}
template <class Def>
inline DType kernel_dtype(const Call& call, ...) {
  return call.inputs[0].dtype;
}

// The backward of a registration, unless its operator updates its inputs.
template <class Registered>
constexpr Kernel backward_or_null(std::false_type) {
  return Registered::backward;
}
template <class Registered>
constexpr Kernel backward_or_null(std::true_type) {
  return nullptr;
}

template <class Def>
struct Registration {
  typedef typename Def::Params Params;
  static constexpr int kNumInputs = sizeof(Def::kInputs) / sizeof(Def::kInputs[0]);
  static_assert(sizeof(Params) <= kMaxParamBytes, "the attributes do not fit");

  static void parse(const Attr* attrs, int count, void* params, Present* present, Error* error) {
    Params* typed = static_cast<Params*>(params);
    *typed = Params();
    ParamReader reader(Def::kName, attrs, count, error);
    present->given = reader.given(kNumInputs, num_required<Def>(nullptr));
    present->length = list_length(&reader, typed, 0);
    Def::parse(&reader, typed);
    reader.finish();
  }
  static void infer_dtype(const void* params, DType* in, DType* out, Error* error) {
    Def::infer_dtype(*static_cast<const Params*>(params), in, out, error);
  }
  static void infer_shape(const void* params, Shape* in, Shape* out, Error* error) {
    Def::infer_shape(*static_cast<const Params*>(params), in, out, error);
  }
  static int64_t workspace(const void* params, const Tensor* in, bool backward) {
    return Def::workspace(*static_cast<const Params*>(params), in, backward);
  }
  static int forward(const Call& call, const Resources& resources) {
    const Params& params = *static_cast<const Params*>(call.params);
    switch (kernel_dtype<Def>(call, nullptr)) {
      case DType::kFloat32: Def::template forward<float>(params, call, resources); break;
      case DType::kFloat64: Def::template forward<double>(params, call, resources); break;
      case DType::kFloat16: Def::template forward<half>(params, call, resources); break;
      default: break;  // infer_dtype has refused it
    }
    return 0;
  }
  static int backward(const Call& call, const Resources& resources) {
    const Params& params = *static_cast<const Params*>(call.params);
    switch (kernel_dtype<Def>(call, nullptr)) {
      case DType::kFloat32: Def::template backward<float>(params, call, resources); break;
      case DType::kFloat64: Def::template backward<double>(params, call, resources); break;
      case DType::kFloat16: Def::template backward<half>(params, call, resources); break;
      default: break;
    }
    return 0;
  }

  // This runs when the library is loaded, on every processor, yet is compiled for D2L_ISA.  With
  // the table a constant there is nothing left of which the compiler could make vector code.
  Registration() {
    constexpr int num_outputs = sizeof(Def::kOutputs) / sizeof(Def::kOutputs[0]);
    static_assert(kNumInputs <= kMaxTensors && num_outputs <= kMaxTensors, "too many tensors");
    static constexpr Op op = {Def::kName,
                              D2L_STRING(D2L_ISA),
                              Def::kInputs,
                              Def::kOutputs,
                              kNumInputs,
                              num_required<Def>(nullptr),
                              num_outputs,
                              num_results<Def>(nullptr),
                              lists_of<Def>(nullptr),
                              updated_by<Def>(nullptr),
                              parse,
                              infer_dtype,
                              infer_shape,
                              workspace,
                              forward,
                              backward_or_null<Registration>(
                                  std::integral_constant<bool, updated_by<Def>(nullptr) != 0>())};
    register_op(op);
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#define D2L_REGISTER_OP(Def) static ::d2l::Registration<Def> registration_of_##Def

#endif  // D2L_COMMON_OP_H_
