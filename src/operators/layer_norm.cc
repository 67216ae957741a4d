#include "layer_norm.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct LayerNorm {
  typedef LayerNormParams Params;
  static constexpr const char* kName = "layer_norm";
  static constexpr const char* kInputs[] = {"data", "gamma", "beta"};
  static constexpr const char* kOutputs[] = {"out", "mean", "rstd"};

  static void parse(ParamReader* reader, Params* params) { reader->real("eps", &params->eps, 0); }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 3, kName, error);
    out[0] = in[0];
    out[1] = out[2] = in[0] == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    if (!expect_ndim(in[0], 1, kName, "data", error)) return;
    const Shape channels = {1, {cols_of(in[0])}};
    expect_shape(&in[1], channels, kName, "gamma", error);
    expect_shape(&in[2], channels, kName, "beta", error);
    out[0] = in[0];
    out[1] = out[2] = shape_of_rows(in[0]);
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    if (!backward) return 0;
    return row_blocks(rows_of(in[0].shape)) * 2 * cols_of(in[0].shape) * acc_size(in[0].dtype);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources&) {
    const Tensor *in = call.inputs, *out = call.outputs;
    const int64_t cols = cols_of(in[0].shape), rows = rows_of(in[0].shape);
    layer_norm_forward<T>(data<T>(in[0]), data<T>(in[1]), data<T>(in[2]), rows, cols,
                          static_cast<Acc<T>>(params.eps), data<T>(out[0]), data<Acc<T>>(out[1]),
                          data<Acc<T>>(out[2]));
  }

  template <class T>
  static void backward(const Params&, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs, *grad = call.grad_inputs;
    const int64_t cols = cols_of(in[0].shape), rows = rows_of(in[0].shape);
    layer_norm_backward<T>(data<T>(call.grad_outputs[0]), data<T>(in[0]), data<T>(in[1]),
                           data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), rows, cols, data<T>(grad[0]),
                           data<T>(grad[1]), data<T>(grad[2]),
                           static_cast<Acc<T>*>(resources.workspace));
  }
};

D2L_REGISTER_OP(LayerNorm);

}  // namespace D2L_ISA
}  // namespace d2l
