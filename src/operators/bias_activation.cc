#include "bias_activation.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct BiasActivation {
  typedef BiasActivationParams Params;
  static constexpr const char* kName = "bias_activation";
  static constexpr const char* kInputs[] = {"data", "bias"};
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) {
    read_activation(reader, &params->act_type);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 2, kName, error);
    out[0] = in[0];
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    if (!expect_ndim(in[0], 1, kName, "data", error)) return;
    expect_shape(&in[1], {1, {cols_of(in[0])}}, kName, "bias", error);
    out[0] = in[0];
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    if (!backward) return 0;
    return row_blocks(rows_of(in[0].shape)) * cols_of(in[0].shape) * acc_size(in[0].dtype);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources&) {
    const Tensor* in = call.inputs;
    run_activation(params.act_type,
                   BiasActivationForward<T>{data<T>(in[0]), data<T>(in[1]), rows_of(in[0].shape),
                                            cols_of(in[0].shape), data<T>(call.outputs[0])});
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    run_activation(
        params.act_type,
        BiasActivationBackward<T>{data<T>(call.grad_outputs[0]), data<T>(in[0]), data<T>(in[1]),
                                  data<T>(call.outputs[0]), rows_of(in[0].shape),
                                  cols_of(in[0].shape), data<T>(grad[0]), data<T>(grad[1]),
                                  static_cast<Acc<T>*>(resources.workspace)});
  }
};

D2L_REGISTER_OP(BiasActivation);

}  // namespace D2L_ISA
}  // namespace d2l
