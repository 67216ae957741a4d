#include "dense.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct Dense {
  typedef DenseParams Params;
  static constexpr const char* kName = "dense";
  static constexpr const char* kInputs[] = {"data", "weight", "bias"};
  static constexpr int kRequired = 2;
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) {
    static constexpr const char* kNames[] = {"None", "relu", "sigmoid", "tanh"};
    static constexpr Activation kActivations[] = {Activation::kRelu, Activation::kRelu,
                                                  Activation::kSigmoid, Activation::kTanh};
    reader->integer("units", &params->units, 1, int64_t{1} << 31);
    int index = 0;
    reader->choice("act_type", kNames, 4, &index);
    params->activates = index > 0;
    params->act_type = kActivations[index];
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, given(in[2]) ? 3 : 2, kName, error);
    out[0] = in[0];
  }

  static void infer_shape(const Params& params, Shape* in, Shape* out, Error* error) {
    if (!expect_ndim(in[0], 1, kName, kInputs[0], error)) return;
    expect_shape(&in[1], {2, {params.units, cols_of(in[0])}}, kName, kInputs[1], error);
    if (given(in[2])) expect_shape(&in[2], {1, {params.units}}, kName, kInputs[2], error);
    out[0] = in[0];
    out[0].dim[out[0].ndim - 1] = params.units;
  }

  static int64_t workspace(const Params& params, const Tensor* in, bool backward) {
    const bool has_bias = given(in[2]);
    switch (in[0].dtype) {
      case DType::kFloat64:
        return dense_workspace(params, dense_arrays<double>(in), has_bias, backward);
      case DType::kFloat16:
        return dense_workspace(params, dense_arrays<half>(in), has_bias, backward);
      default: return dense_workspace(params, dense_arrays<float>(in), has_bias, backward);
    }
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    DenseArrays<T> on = dense_arrays<T>(call.inputs);
    on.y = data<T>(call.outputs[0]);
    run_dense(params, DenseForward<T>{on, resources.workspace});
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    DenseArrays<T> on = dense_arrays<T>(call.inputs);
    on.y = data<T>(call.outputs[0]);
    const Tensor* grad = call.grad_inputs;
    dense_backward(params, on, data<T>(call.grad_outputs[0]), data<T>(grad[0]), data<T>(grad[1]),
                   data<T>(grad[2]), resources.workspace);
  }
};

D2L_REGISTER_OP(Dense);

}  // namespace D2L_ISA
}  // namespace d2l
