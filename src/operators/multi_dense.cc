#include "multi_dense.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct MultiDense {
  typedef MultiDenseParams Params;
  static constexpr const char* kName = "multi_dense";
  static constexpr const char* kInputs[] = {"data",   "weight_0", "weight_1", "weight_2",
                                            "bias_0", "bias_1",   "bias_2"};
  static constexpr int kRequired = 3;
  static constexpr const char* kOutputs[] = {"out_0", "out_1", "out_2"};
  static constexpr int kResults = 3;
  static constexpr int kNumInputs = sizeof(kInputs) / sizeof(kInputs[0]);

  static void parse(ParamReader* reader, Params* params) {
    reader->integer("units", &params->units, 1, int64_t{1} << 31);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    if (given(in[bias_of(2)]) && !given(in[weight_of(2)])) {
      return fail(error, "%s: bias_2 must come with weight_2, got None", kName);
    }
    DType some[kNumInputs];
    const char* names[kNumInputs];
    int count = 0;
    for (int i = 0; i < kNumInputs; ++i) {
      if (i >= kRequired && !given(in[i])) continue;
      some[count] = in[i];
      names[count++] = kInputs[i];
    }
    expect_same_float(some, names, count, kName, error);
    for (int i = kNumInputs - 1; i >= 0; --i) {
      if (i < kRequired || given(in[i])) in[i] = some[--count];
    }
    for (int i = 0; i < kMostLayers; ++i) out[i] = in[0];
  }

  static void infer_shape(const Params& params, Shape* in, Shape* out, Error* error) {
    if (!expect_ndim(in[0], 1, kName, kInputs[0], error)) return;
    for (int i = 0; i < kMostLayers; ++i) {
      const int w = weight_of(i), b = bias_of(i);
      out[i] = {1, {1}};
      if (!given(in[w])) continue;
      expect_shape(&in[w], {2, {params.units, cols_of(in[0])}}, kName, kInputs[w], error);
      if (given(in[b])) expect_shape(&in[b], {1, {params.units}}, kName, kInputs[b], error);
      out[i] = in[0];
      out[i].dim[out[i].ndim - 1] = params.units;
    }
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    switch (in[0].dtype) {
      case DType::kFloat64: return multi_dense_workspace<double>(in, backward);
      case DType::kFloat16: return multi_dense_workspace<half>(in, backward);
      default: return multi_dense_workspace<float>(in, backward);
    }
  }

  template <class T>
  static void forward(const Params&, const Call& call, const Resources& resources) {
    multi_dense_forward<T>(call.inputs, call.outputs, resources.workspace);
  }

  template <class T>
  static void backward(const Params&, const Call& call, const Resources& resources) {
    multi_dense_backward<T>(call.inputs, call.grad_outputs, call.grad_inputs, resources.workspace);
  }
};

D2L_REGISTER_OP(MultiDense);

}  // namespace D2L_ISA
}  // namespace d2l
