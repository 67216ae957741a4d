// The CUDA twin of dense.h: the products of common/products_cuda.h, bias and activation applied to
// the sums before they are stored; gradients as there.
#include "common/bias_cuda.h"
#include "common/products_cuda.h"
#include "dense.h"

namespace d2l {
inline namespace D2L_ISA {

// What becomes of a sum: an entry of y.
template <class F, class T>
struct DenseFinish {
  const T* b;  // may be null

  __device__ Acc<T> operator()(Acc<T> sum, int64_t c) const {
    return F::apply(b ? sum + load(b[c]) : sum);
  }
};

template <class T>
struct DenseForwardCuda {
  const DenseArrays<T>& on;
  void* stream;

  template <class F>
  int with() const {
    return multiply(1, on.data(), on.weight().flipped(), on.y, stream, DenseFinish<F, T>{on.b});
  }
};

struct DenseCuda {
  typedef DenseParams Params;
  static constexpr const char* kName = "dense";

  // Sums of g if there is a bias, then g if it is not dy.
  static int64_t sums(const Tensor* in) {
    return given(in[2]) ? row_blocks(rows_of(in[0].shape)) * in[1].shape.dim[0] : 0;
  }

  static int64_t workspace(const Params& params, const Tensor* in, bool backward) {
    if (!backward) return 0;
    const int64_t entries = params.activates ? rows_of(in[0].shape) * in[1].shape.dim[0] : 0;
    return sums(in) * acc_size(in[0].dtype) + entries * size_of(in[0].dtype);
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    DenseArrays<T> on = dense_arrays<T>(call.inputs);
    on.y = data<T>(call.outputs[0]);
    return run_dense(params, DenseForwardCuda<T>{on, resources.stream});
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    DenseArrays<T> on = dense_arrays<T>(call.inputs);
    on.y = data<T>(call.outputs[0]);
    const Tensor* grad = call.grad_inputs;
    const T* dy = data<T>(call.grad_outputs[0]);
    Acc<T>* parts = static_cast<Acc<T>*>(resources.workspace);
    if (params.activates) on.g = reinterpret_cast<T*>(parts + sums(call.inputs));
    if (on.g || on.b) {
      const BiasActivationBackwardCuda<T> run = {
          dy,       nullptr, nullptr,          on.y,  on.rows,
          on.units, on.g,    data<T>(grad[2]), parts, resources.stream};
      if (int status = run_dense(params, run)) return status;
    }
    const Factor<T> g = {params.activates ? on.g : dy, on.rows, on.units, false};
    const int status = multiply(1, g, on.weight(), data<T>(grad[0]), resources.stream);
    if (status) return status;
    return multiply(1, g.flipped(), on.data(), data<T>(grad[1]), resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(DenseCuda);

}  // namespace D2L_ISA
}  // namespace d2l
