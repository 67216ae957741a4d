#include "masked_softmax_ce.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct MaskedSoftmaxCE {
  typedef MaskedSoftmaxCEParams Params;
  static constexpr const char* kName = "masked_softmax_ce";
  static constexpr const char* kInputs[] = {"pred", "label", "valid_len"};
  static constexpr const char* kOutputs[] = {"loss", "maximum", "total"};

  static void parse(ParamReader* reader, Params* params) {
    reader->fraction("smoothing", &params->smoothing);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 1, kName, error);
    expect_number(&in[1], kName, kInputs[1], error);
    expect_number(&in[2], kName, kInputs[2], error);
    out[0] = in[0];
    out[1] = out[2] = in[0] == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    const Shape& pred = in[0];
    if (pred.ndim != 3 || pred.dim[2] == 0) {
      fail(error,
           "%s: pred must have shape (batch, steps, vocab) with a vocab of at least 1, got %s",
           kName, ShapeText(pred).text);
      return;
    }
    const Shape rows = {2, {pred.dim[0], pred.dim[1]}}, examples = {1, {pred.dim[0]}};
    expect_shape(&in[1], rows, kName, kInputs[1], error);
    expect_shape(&in[2], examples, kName, kInputs[2], error);
    out[0] = examples;
    out[1] = out[2] = rows;
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    return masked_softmax_ce_workspace(in, backward);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* out = call.outputs;
    masked_softmax_ce_forward(masked_softmax_ce_inputs<T>(params, call.inputs), data<T>(out[0]),
                              data<Acc<T>>(out[1]), data<Acc<T>>(out[2]),
                              static_cast<Acc<T>*>(resources.workspace));
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources&) {
    const Tensor* out = call.outputs;
    masked_softmax_ce_backward(masked_softmax_ce_inputs<T>(params, call.inputs),
                               data<T>(call.grad_outputs[0]), data<Acc<T>>(out[1]),
                               data<Acc<T>>(out[2]), data<T>(call.grad_inputs[0]));
    clear(call.grad_inputs[1]);
    clear(call.grad_inputs[2]);
  }
};

D2L_REGISTER_OP(MaskedSoftmaxCE);

}  // namespace D2L_ISA
}  // namespace d2l
