#include "positional_encoding.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct PositionalEncoding {
  typedef PositionalEncodingParams Params;
  static constexpr const char* kName = "positional_encoding";
  static constexpr const char* kInputs[] = {"data", "past"};
  static constexpr int kRequired = 1;
  static constexpr const char* kOutputs[] = {"out"};
  static constexpr bool kByOutput = true;

  static void parse(ParamReader* reader, Params* params) {
    static constexpr const char* kNames[] = {"float16", "float32", "float64"};
    static constexpr DType kDTypes[] = {DType::kFloat16, DType::kFloat32, DType::kFloat64};
    int dtype = 1;
    reader->integer("num_hiddens", &params->num_hiddens, 1, 1 << 20);
    reader->choice("dtype", kNames, 3, &dtype);
    params->dtype = kDTypes[dtype];
  }

  static void infer_dtype(const Params& params, DType* in, DType* out, Error* error) {
    expect_number(&in[0], kName, kInputs[0], error);
    if (given(in[1])) expect_number(&in[1], kName, kInputs[1], error);
    out[0] = params.dtype;
  }

  static void infer_shape(const Params& params, Shape* in, Shape* out, Error* error) {
    if (!expect_ndim(in[0], 2, kName, kInputs[0], error)) return;
    // An unknown shape of past is refused in the words for that.
    if (in[1].ndim >= 0) expect_ndim(in[1], 2, kName, kInputs[1], error);
    out[0] = {3, {1, in[0].dim[1], params.num_hiddens}};
  }

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources&) {
    write_codes(params.dtype, params.num_hiddens, past_steps(call.inputs[1]),
                call.outputs[0].shape.dim[1], call.outputs[0].data);
  }

  template <class T>
  static void backward(const Params&, const Call& call, const Resources&) {
    for (int i = 0; i < 2; ++i) clear(call.grad_inputs[i]);
  }
};

D2L_REGISTER_OP(PositionalEncoding);

}  // namespace D2L_ISA
}  // namespace d2l
