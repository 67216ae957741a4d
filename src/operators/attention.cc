#include "attention.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct Attention {
  typedef AttentionParams Params;
  static constexpr const char* kName = "attention";
  static constexpr const char* kInputs[] = {"query", "key", "value", "valid_len", "seed"};
  static constexpr const char* kOutputs[] = {"out", "peak", "inverse"};
  static constexpr int kRequired = 3;

  static void parse(ParamReader* reader, Params* params) {
    reader->integer("num_heads", &params->num_heads, 1, INT32_MAX);
    reader->boolean("causal", &params->causal);
    reader->real("scale", &params->scale, 0);
    reader->fraction("dropout", &params->dropout);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 3, kName, error);
    if (given(in[3])) expect_number(&in[3], kName, kInputs[3], error);
    if (given(in[4])) expect_seed_dtype(&in[4], kName, error);
    out[0] = in[0];
    out[1] = out[2] = in[0] == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }

  // Three axes, of which num_heads divides the last.
  static bool expect_heads(const Params& params, const Shape& shape, const char* argument,
                           Error* error) {
    if (shape.ndim != 3) {
      fail(error, "%s: %s must have 3 axes, got shape %s", kName, argument, ShapeText(shape).text);
    } else if (cols(shape) % params.num_heads != 0) {
      fail(error, "%s: %s must have a last axis that num_heads, %lld, divides, got shape %s", kName,
           argument, static_cast<long long>(params.num_heads), ShapeText(shape).text);
    }
    return !error->set;
  }

  static int64_t cols(const Shape& shape) { return shape.dim[2]; }

  static void infer_shape(const Params& params, Shape* in, Shape* out, Error* error) {
    const Shape &query = in[0], &value = in[2];
    if (!expect_heads(params, query, kInputs[0], error)) return;
    if (in[1].ndim != 3) {
      fail(error, "%s: key must have 3 axes, got shape %s", kName, ShapeText(in[1]).text);
      return;
    }
    expect_shape(&in[1], {3, {query.dim[0], in[1].dim[1], cols(query)}}, kName, kInputs[1], error);
    if (!expect_heads(params, value, kInputs[2], error)) return;
    expect_shape(&in[2], {3, {query.dim[0], in[1].dim[1], cols(value)}}, kName, kInputs[2], error);
    out[0] = {3, {query.dim[0], query.dim[1], cols(value)}};
    out[1] = out[2] = {3, {query.dim[0], params.num_heads, query.dim[1]}};
    if (given(in[4])) expect_seed_shape(&in[4], kName, error);
    if (given(in[3])) expect_lengths_shape(&in[3], query, kName, error);
  }

  static int64_t workspace(const Params& params, const Tensor* in, bool backward) {
    const AttentionSizes size = attention_sizes(params, in);
    return in[0].dtype == DType::kFloat64 ? attention_workspace<double>(size, backward)
                                          : attention_workspace<float>(size, backward);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* out = call.outputs;
    attention_forward<T>(attention_inputs<T>(params, call.inputs), data<T>(out[0]),
                         data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), resources.workspace);
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *out = call.outputs, *grad = call.grad_inputs;
    attention_backward<T>(
        attention_inputs<T>(params, call.inputs),
        {data<T>(call.grad_outputs[0]), data<T>(out[0]), data<Acc<T>>(out[1]), data<Acc<T>>(out[2]),
         data<T>(grad[0]), data<T>(grad[1]), data<T>(grad[2])},
        resources.workspace);
    if (given(grad[3])) clear(grad[3]);
    if (given(grad[4])) clear(grad[4]);
  }
};

D2L_REGISTER_OP(Attention);

}  // namespace D2L_ISA
}  // namespace d2l
