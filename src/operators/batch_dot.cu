// The CUDA twin of batch_dot.h: same factors and gradients, by the products of
// common/products_cuda.h.
#include "batch_dot.h"
#include "common/products_cuda.h"

namespace d2l {
inline namespace D2L_ISA {

struct BatchDotCuda {
  typedef BatchDotParams Params;
  static constexpr const char* kName = "batch_dot";

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* in = call.inputs;
    return multiply(in[0].shape.dim[0], factor_of<T>(in[0], params.transpose_a),
                    factor_of<T>(in[1], params.transpose_b), data<T>(call.outputs[0]),
                    resources.stream);
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    return batch_dot_gradients<T>(
        params, factor_of<T>(in[0], params.transpose_a), factor_of<T>(in[1], params.transpose_b),
        data<T>(call.grad_outputs[0]), data<T>(grad[0]), data<T>(grad[1]),
        [&](const Factor<T>& left, const Factor<T>& right, T* to) {
          return multiply(in[0].shape.dim[0], left, right, to, resources.stream);
        });
  }
};

D2L_REGISTER_CUDA_OP(BatchDotCuda);

}  // namespace D2L_ISA
}  // namespace d2l
