#include "masked_softmax.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct MaskedSoftmax {
  typedef MaskedSoftmaxParams Params;
  static constexpr const char* kName = "masked_softmax";
  static constexpr const char* kInputs[] = {"data", "valid_len"};
  static constexpr const char* kOutputs[] = {"out"};
  static constexpr int kRequired = 1;

  static void parse(ParamReader*, Params*) {}

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 1, kName, error);
    if (given(in[1])) expect_number(&in[1], kName, kInputs[1], error);
    out[0] = in[0];
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    const Shape& data = in[0];
    out[0] = data;
    if (!given(in[1])) return;
    if (!expect_ndim(data, 2, kName, "data", error)) return;
    Shape want = {1, {data.dim[0]}};
    if (in[1].ndim == 2 && data.ndim == 3) {
      want = {2, {data.dim[0], data.dim[1]}};
    } else if (in[1].ndim != 1) {
      fail(error, "%s: valid_len must have shape (batch,)%s for data of shape %s, got %s", kName,
           data.ndim == 3 ? " or (batch, queries)" : "", ShapeText(data).text,
           ShapeText(in[1]).text);
      return;
    }
    expect_shape(&in[1], want, kName, "valid_len", error);
  }

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static void forward(const Params&, const Call& call, const Resources&) {
    const Shape& shape = call.inputs[0].shape;
    masked_softmax_forward<T>(data<T>(call.inputs[0]), lengths_of(call.inputs[1], shape),
                              rows_of(shape), cols_of(shape), data<T>(call.outputs[0]));
  }

  template <class T>
  static void backward(const Params&, const Call& call, const Resources&) {
    const Shape& shape = call.inputs[0].shape;
    masked_softmax_backward<T>(data<T>(call.grad_outputs[0]), data<T>(call.outputs[0]),
                               lengths_of(call.inputs[1], shape), rows_of(shape), cols_of(shape),
                               data<T>(call.grad_inputs[0]));
    clear(call.grad_inputs[1]);
  }
};

D2L_REGISTER_OP(MaskedSoftmax);

}  // namespace D2L_ISA
}  // namespace d2l
