#include "dropout.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct DropoutOp {
  typedef DropoutParams Params;
  static constexpr const char* kName = "dropout";
  static constexpr const char* kInputs[] = {"data", "seed"};
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) { reader->fraction("p", &params->p); }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 1, kName, error);
    expect_seed_dtype(&in[1], kName, error);
    out[0] = in[0];
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    expect_ndim(in[0], 0, kName, kInputs[0], error);
    expect_seed_shape(&in[1], kName, error);
    out[0] = in[0];
  }

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources&) {
    drop_out<T>(data<T>(call.inputs[0]), dropout_of(data<float>(call.inputs[1]), params.p),
                volume(call.inputs[0].shape), data<T>(call.outputs[0]));
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources&) {
    drop_out<T>(data<T>(call.grad_outputs[0]), dropout_of(data<float>(call.inputs[1]), params.p),
                volume(call.inputs[0].shape), data<T>(call.grad_inputs[0]));
    clear(call.grad_inputs[1]);
  }
};

D2L_REGISTER_OP(DropoutOp);

}  // namespace D2L_ISA
}  // namespace d2l
