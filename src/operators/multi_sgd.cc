#include "multi_sgd.h"

#include <float.h>

#include "common/op.h"

namespace d2l {
inline namespace D2L_ISA {

struct MultiSgd {
  typedef MultiSgdParams Params;
  static constexpr const char* kName = "multi_sgd";
  static constexpr const char* kInputs[] = {"weights", "grads", "momenta", "rounded"};
  static constexpr const char* kOutputs[] = {"done"};
  static constexpr int kRequired = 2;
  static constexpr uint32_t kLists = 0b1111, kUpdated = 0b1101;

  static void parse(ParamReader* reader, Params* p) {
    reader->reals("lrs", &p->lrs, p->num_weights);
    reader->reals("wds", &p->wds, p->num_weights);
    reader->real("momentum", &p->momentum, 0);
    reader->real("rescale_grad", &p->rescale_grad, -DBL_MAX);
    reader->real("clip_gradient", &p->clip_gradient, 0);
  }

  static void infer_dtype(const Params& p, DType* in, DType* out, Error* error) {
    expect_list_dtypes(in, kInputs, 1, p.num_weights, kName, error);
    out[0] = DType::kFloat32;
  }

  static void infer_shape(const Params& p, Shape* in, Shape* out, Error* error) {
    expect_list_shapes(in, kInputs, 4, p.num_weights, kName, error);
    out[0] = {1, {1}};
  }

  static int64_t workspace(const Params& p, const Tensor*, bool) {
    return (3 * p.num_weights + 1) * 8;
  }

  template <class T>
  static void forward(const Params& p, const Call& call, const Resources& resources) {
    if (given(call.inputs[3 * p.num_weights])) {
      multi_sgd_update<float, half>(p, call.inputs, resources.workspace);
    } else {
      multi_sgd_update<T, T>(p, call.inputs, resources.workspace);
    }
    *data<float>(call.outputs[0]) = 0;
  }
};

D2L_REGISTER_OP(MultiSgd);

}  // namespace D2L_ISA
}  // namespace d2l
