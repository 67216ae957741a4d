#include "activation.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct ActivationOp {
  typedef ActivationParams Params;
  static constexpr const char* kName = "activation";
  static constexpr const char* kInputs[] = {"data"};
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) {
    read_activation(reader, &params->act_type);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 1, kName, error);
    out[0] = in[0];
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error*) { out[0] = in[0]; }

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources&) {
    run_activation(params.act_type,
                   ActivationForward<T>{data<T>(call.inputs[0]), volume(call.inputs[0].shape),
                                        data<T>(call.outputs[0])});
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources&) {
    run_activation(params.act_type,
                   ActivationBackward<T>{data<T>(call.grad_outputs[0]), data<T>(call.inputs[0]),
                                         data<T>(call.outputs[0]), volume(call.inputs[0].shape),
                                         data<T>(call.grad_inputs[0])});
  }
};

D2L_REGISTER_OP(ActivationOp);

}  // namespace D2L_ISA
}  // namespace d2l
