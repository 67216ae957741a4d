#include "embedding.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct Embedding {
  typedef EmbeddingParams Params;
  static constexpr const char* kName = "embedding";
  static constexpr const char* kInputs[] = {"weight", "data", "position", "segment_weight",
                                            "segments"};
  static constexpr int kRequired = 2;
  static constexpr const char* kOutputs[] = {"out"};

  static void parse(ParamReader* reader, Params* params) {
    reader->real("scale", &params->scale, 0, true);
  }

  static void infer_dtype(const Params&, DType* in, DType* out, Error* error) {
    expect_same_float(in, kInputs, 1, kName, error);
    expect_number(&in[1], kName, kInputs[1], error);
    for (int i = 2; i < 4; ++i) {
      if (!given(in[i])) continue;
      DType pair[] = {in[0], in[i]};
      const char* const names[] = {kInputs[0], kInputs[i]};
      expect_same_float(pair, names, 2, kName, error);
      in[i] = pair[1];
    }
    if (given(in[4])) expect_number(&in[4], kName, kInputs[4], error);
    out[0] = in[0];
  }

  static void infer_shape(const Params&, Shape* in, Shape* out, Error* error) {
    if (!expect_table(in[0], kInputs[0], error)) return;
    const Shape& data = in[1];
    if (data.ndim < 1 || data.ndim >= kMaxDims) {
      fail(error, "%s: data must have 1 to %d axes, got shape %s", kName, kMaxDims - 1,
           ShapeText(data).text);
      return;
    }
    const int64_t cols = in[0].dim[1], steps = data.dim[data.ndim - 1];
    if (given(in[2])) infer_position(&in[2], steps, cols, error);
    if (given(in[3]) != given(in[4])) {
      fail(error, "%s: segments and segment_weight must both be given, or neither", kName);
      return;
    }
    if (given(in[3])) {
      const Shape want = {2, {in[3].ndim == 2 ? in[3].dim[0] : -1, cols}};
      expect_shape(&in[3], want, kName, kInputs[3], error);
      if (!expect_table(in[3], kInputs[3], error)) return;
      expect_shape(&in[4], data, kName, kInputs[4], error);
    }
    out[0] = data;
    out[0].dim[out[0].ndim++] = cols;
  }

  static bool expect_table(const Shape& table, const char* argument, Error* error) {
    if (table.ndim == 2 && table.dim[0] != 0) return true;
    fail(error, "%s: %s must have shape (rows, num_hiddens) with at least 1 row, got %s", kName,
         argument, ShapeText(table).text);
    return false;
  }

  static void infer_position(Shape* position, int64_t steps, int64_t cols, Error* error) {
    Shape want = {3, {1, position->ndim == 3 ? position->dim[1] : -1, cols}};
    if (want.dim[1] >= 0 && want.dim[1] < steps) {
      fail(error, "%s: position must have a row for each of %lld steps, got shape %s", kName,
           static_cast<long long>(steps), ShapeText(*position).text);
      return;
    }
    expect_shape(position, want, kName, kInputs[2], error);
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    if (!backward) return 0;
    const int64_t vocab = in[0].shape.dim[0];
    const int64_t segments = given(in[3]) ? in[3].shape.dim[0] : 0;
    return table_workspace(volume(in[1].shape), vocab > segments ? vocab : segments) *
           sizeof(int32_t);
  }

  template <class T>
  static void forward(const Params& params, const Call& call, const Resources&) {
    embedding_forward(embedding_inputs<T>(params, call.inputs), data<T>(call.outputs[0]));
  }

  template <class T>
  static void backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* grad = call.grad_inputs;
    embedding_backward(embedding_inputs<T>(params, call.inputs), data<T>(call.grad_outputs[0]),
                       data<T>(grad[0]), data<T>(grad[2]), data<T>(grad[3]),
                       static_cast<int32_t*>(resources.workspace));
    clear(grad[1]);
    if (given(grad[4])) clear(grad[4]);
  }
};

D2L_REGISTER_OP(Embedding);

}  // namespace D2L_ISA
}  // namespace d2l
