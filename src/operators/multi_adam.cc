#include "multi_adam.h"

#include <float.h>

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct MultiAdam {
  typedef MultiAdamParams Params;
  static constexpr const char* kName = "multi_adam";
  static constexpr const char* kInputs[] = {"weights", "grads", "means", "variances", "rounded"};
  static constexpr const char* kOutputs[] = {"done"};
  static constexpr int kRequired = 4;
  static constexpr uint32_t kLists = 0b11111, kUpdated = 0b11101;

  static void parse(ParamReader* reader, Params* p) {
    reader->reals("lrs", &p->lrs, p->num_weights);
    reader->reals("wds", &p->wds, p->num_weights);
    reader->reals("steps", &p->steps, p->num_weights, true);
    reader->fraction("beta1", &p->beta1);
    reader->fraction("beta2", &p->beta2);
    reader->real("epsilon", &p->epsilon, 0);
    reader->real("rescale_grad", &p->rescale_grad, -DBL_MAX);
    reader->real("clip_gradient", &p->clip_gradient, 0);
    reader->boolean("bias_correction", &p->bias_correction);
    reader->boolean("decoupled", &p->decoupled);
  }

  static void infer_dtype(const Params& p, DType* in, DType* out, Error* error) {
    expect_list_dtypes(in, kInputs, 2, p.num_weights, kName, error);
    out[0] = DType::kFloat32;
  }

  static void infer_shape(const Params& p, Shape* in, Shape* out, Error* error) {
    expect_list_shapes(in, kInputs, 5, p.num_weights, kName, error);
    out[0] = {1, {1}};
  }

  static int64_t workspace(const Params& p, const Tensor*, bool) {
    return (4 * p.num_weights + 1) * 8 +
           p.num_weights * static_cast<int64_t>(sizeof(AdamRates<double>));
  }

  template <class T>
  static void forward(const Params& p, const Call& call, const Resources& resources) {
    if (given(call.inputs[4 * p.num_weights])) {
      multi_adam_update<float, half>(p, call.inputs, resources.workspace);
    } else {
      multi_adam_update<T, T>(p, call.inputs, resources.workspace);
    }
    *data<float>(call.outputs[0]) = 0;
  }
};

D2L_REGISTER_OP(MultiAdam);

}  // namespace D2L_ISA
}  // namespace d2l
