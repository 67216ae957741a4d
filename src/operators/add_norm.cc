#include "add_norm.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct AddNorm {
  typedef AddNormParams Params;
  static constexpr const char* kName = "add_norm";
  static constexpr const char* kInputs[] = {"X", "Y", "gamma", "beta", "seed"};
  static constexpr const char* kOutputs[] = {"out", "mean", "rstd"};
  static constexpr int kRequired = 4;

  static void parse(ParamReader* reader, Params* params) {
    reader->fraction("p", &params->p);
    reader->real("eps", &params->eps, 0);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 4, kName, error);
    if (given(in[4])) expect_seed_dtype(&in[4], kName, error);
    out[0] = in[0];
    out[1] = out[2] = in[0] == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    if (!expect_ndim(in[0], 1, kName, kInputs[0], error)) return;
    const Shape channels = {1, {cols_of(in[0])}};
    expect_shape(&in[1], in[0], kName, kInputs[1], error);
    expect_shape(&in[2], channels, kName, kInputs[2], error);
    expect_shape(&in[3], channels, kName, kInputs[3], error);
    if (given(in[4])) expect_seed_shape(&in[4], kName, error);
    out[0] = in[0];
    out[1] = out[2] = shape_of_rows(in[0]);
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    return row_blocks(rows_of(in[0].shape)) * (backward ? 4 : 2) * cols_of(in[0].shape) *
           acc_size(in[0].dtype);
  }

  static Dropout dropout(const Params& params, const Tensor& seed) {
    return given(seed) ? dropout_of(data<float>(seed), params.p) : Dropout();
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs;
    add_norm_forward<T>(data<T>(in[0]), data<T>(in[1]), data<T>(in[2]), data<T>(in[3]),
                        dropout(params, in[4]), rows_of(in[0].shape), cols_of(in[0].shape),
                        static_cast<Acc<T>>(params.eps), data<T>(out[0]), data<Acc<T>>(out[1]),
                        data<Acc<T>>(out[2]), static_cast<Acc<T>*>(resources.workspace));
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs, *grad = call.grad_inputs;
    add_norm_backward<T>(data<T>(call.grad_outputs[0]), data<T>(in[0]), data<T>(in[1]),
                         data<T>(in[2]), dropout(params, in[4]), data<Acc<T>>(out[1]),
                         data<Acc<T>>(out[2]), rows_of(in[0].shape), cols_of(in[0].shape),
                         data<T>(grad[0]), data<T>(grad[1]), data<T>(grad[2]), data<T>(grad[3]),
                         static_cast<Acc<T>*>(resources.workspace));
    if (given(grad[4])) clear(grad[4]);
  }
};

D2L_REGISTER_OP(AddNorm);

}  // namespace D2L_ISA
}  // namespace d2l
