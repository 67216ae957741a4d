#include "global_norm_clip.h"

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct GlobalNormClip {
  typedef GlobalNormClipParams Params;
  static constexpr const char* kName = "global_norm_clip";
  static constexpr const char* kInputs[] = {"grads", "divisor"};
  static constexpr const char* kOutputs[] = {"norm"};
  static constexpr int kRequired = 1;
  static constexpr uint32_t kLists = 0b01, kUpdated = 0b01;

  static void parse(ParamReader* reader, Params* p) { reader->real("theta", &p->theta, 0); }

  static void infer_dtype(const Params& p, DType* in, DType* out, Error* error) {
    for (int64_t i = 0; i < p.num_weights; ++i) {
      if (in[i] != DType::kFloat16 && in[i] != DType::kFloat32 && in[i] != DType::kFloat64) {
        fail(error, "%s: grads[%lld] must have dtype float16, float32 or float64, got %s", kName,
             static_cast<long long>(i), name_of(in[i]));
      }
    }
    const DType divisor = in[p.num_weights];
    if (given(divisor) && divisor != DType::kFloat64) {
      fail(error, "%s: divisor must have dtype float64, got %s", kName, name_of(divisor));
    }
    out[0] = DType::kFloat64;
  }

  static void infer_shape(const Params& p, Shape* in, Shape* out, Error* error) {
    const Shape& divisor = in[p.num_weights];
    if (given(divisor) && volume(divisor) != 1) {
      fail(error, "%s: divisor must have one element, got shape %s", kName,
           ShapeText(divisor).text);
    }
    out[0] = {1, {1}};
  }

  static int64_t workspace(const Params& p, const Tensor* in, bool) {
    return (p.num_weights + 1 + blocks_of(in, p.num_weights)) * 8;
  }

  template <class T>
  static void forward(const Params& p, const Call& call, const Resources& resources) {
    const Tensor& divisor = call.inputs[p.num_weights];
    global_norm_clip(p, call.inputs, given(divisor) ? data<double>(divisor) : nullptr,
                     data<double>(call.outputs[0]), resources.workspace);
  }
};

D2L_REGISTER_OP(GlobalNormClip);

}  // namespace D2L_ISA
}  // namespace d2l
