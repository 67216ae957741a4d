#include "additive_attention.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct AdditiveAttention {
  typedef AdditiveAttentionParams Params;
  static constexpr const char* kName = "additive_attention";
  static constexpr const char* kInputs[] = {"query", "key", "value", "v", "valid_len", "seed"};
  static constexpr const char* kOutputs[] = {"out", "peak", "inverse"};
  static constexpr int kRequired = 4;

  static void parse(ParamReader* reader, Params* params) {
    reader->fraction("dropout", &params->dropout);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 4, kName, error);
    if (given(in[4])) expect_number(&in[4], kName, kInputs[4], error);
    if (given(in[5])) expect_seed_dtype(&in[5], kName, error);
    out[0] = in[0];
    out[1] = out[2] = in[0] == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    for (int i = 0; i < 3; ++i) {
      if (in[i].ndim == 3) continue;
      fail(error, "%s: %s must have 3 axes, got shape %s", kName, kInputs[i],
           ShapeText(in[i]).text);
      return;
    }
    const Shape& query = in[0];
    const int64_t batch = query.dim[0], hidden = query.dim[2];
    expect_shape(&in[1], {3, {batch, in[1].dim[1], hidden}}, kName, kInputs[1], error);
    expect_shape(&in[2], {3, {batch, in[1].dim[1], in[2].dim[2]}}, kName, kInputs[2], error);
    expect_shape(&in[3], {1, {hidden}}, kName, kInputs[3], error);
    out[0] = {3, {batch, query.dim[1], in[2].dim[2]}};
    out[1] = out[2] = {2, {batch, query.dim[1]}};
    if (given(in[5])) expect_seed_shape(&in[5], kName, error);
    if (given(in[4])) expect_lengths_shape(&in[4], query, kName, error);
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    const AttentionSizes size = additive_sizes(in);
    return in[0].dtype == DType::kFloat64 ? additive_workspace<double>(size, backward)
                                          : additive_workspace<float>(size, backward);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* out = call.outputs;
    additive_forward<T>(additive_inputs<T>(params, call.inputs), data<T>(out[0]),
                        data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), resources.workspace);
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *out = call.outputs, *grad = call.grad_inputs;
    additive_backward<T>(
        additive_inputs<T>(params, call.inputs),
        {data<T>(call.grad_outputs[0]), data<T>(out[0]), data<Acc<T>>(out[1]), data<Acc<T>>(out[2]),
         data<T>(grad[0]), data<T>(grad[1]), data<T>(grad[2])},
        data<T>(grad[3]), resources.workspace);
    if (given(grad[4])) clear(grad[4]);
    if (given(grad[5])) clear(grad[5]);
  }
};

D2L_REGISTER_OP(AdditiveAttention);

}  // namespace D2L_ISA
}  // namespace d2l
