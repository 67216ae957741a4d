#include "batch_dot.h"

namespace d2l {
inline namespace D2L_ISA {

struct BatchDot {
  typedef BatchDotParams Params;
  static constexpr const char* kName = "batch_dot";
  static constexpr const char* kInputs[] = {"a", "b"};
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) {
    reader->boolean("transpose_a", &params->transpose_a);
    reader->boolean("transpose_b", &params->transpose_b);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 2, kName, error);
    out[0] = in[0];
  }

  static void infer_shape(const Params& params, Shape* in, Shape* out, Error* error) {
    for (int i = 0; i < 2; ++i) {
      if (in[i].ndim == 3) continue;
      fail(error, "%s: %s must have 3 axes, got shape %s", kName, kInputs[i],
           ShapeText(in[i]).text);
      return;
    }
    const int64_t *a = in[0].dim, *b = in[1].dim;
    const int64_t depth = a[params.transpose_a ? 1 : 2];
    expect_shape(&in[1],
                 params.transpose_b ? Shape{3, {a[0], b[1], depth}} : Shape{3, {a[0], depth, b[2]}},
                 kName, kInputs[1], error);
    out[0] = {3, {a[0], a[params.transpose_a ? 2 : 1], b[params.transpose_b ? 1 : 2]}};
  }

  // Backward has two products, one after the other.
  template <class T>
  static int64_t bytes(const Params& params, const Tensor* in, bool backward) {
    const Factor<T> a = factor_of<T>(in[0], params.transpose_a);
    const Factor<T> b = factor_of<T>(in[1], params.transpose_b);
    int64_t most = 0;
    const auto measure = [&](const Factor<T>& left, const Factor<T>& right, T*) {
      most = at_least(most, product_workspace(in[0].shape.dim[0], left, right));
      return 0;
    };
    if (backward) {
      batch_dot_gradients<T>(params, a, b, nullptr, nullptr, nullptr, measure);
    } else {
      measure(a, b, nullptr);
    }
    return most;
  }

  static int64_t workspace(const Params& params, const Tensor* in, bool backward) {
    switch (in[0].dtype) {
      case DType::kFloat64: return bytes<double>(params, in, backward);
      case DType::kFloat16: return bytes<half>(params, in, backward);
      default: return bytes<float>(params, in, backward);
    }
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* in = call.inputs;
    multiply(in[0].shape.dim[0], factor_of<T>(in[0], params.transpose_a),
             factor_of<T>(in[1], params.transpose_b), data<T>(call.outputs[0]),
             resources.workspace);
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    batch_dot_gradients<T>(params, factor_of<T>(in[0], params.transpose_a),
                           factor_of<T>(in[1], params.transpose_b), data<T>(call.grad_outputs[0]),
                           data<T>(grad[0]), data<T>(grad[1]),
                           [&](const Factor<T>& left, const Factor<T>& right, T* to) {
                             multiply(in[0].shape.dim[0], left, right, to, resources.workspace);
                             return 0;
                           });
  }
};

D2L_REGISTER_OP(BatchDot);

}  // namespace D2L_ISA
}  // namespace d2l
