// The CUDA twin of layer_norm.h; its kernels are those of common/norm_cuda.h.
#include "common/norm_cuda.h"

namespace d2l {
inline namespace D2L_ISA {

// Rows of an array; see norm_cuda.h.
template <class T>
struct ArrayRows {
  typedef Acc<T> A;
  static constexpr int kRegisters = 0;
  const T* x;
  T* dx;

  bool aligned_to(int bytes) const { return aligned(bytes, {x, dx}); }
  __device__ void start() {}
  template <class Plan>
  __device__ void load(int64_t row, int cols, A fill, A (&item)[Plan::kItems]) const {
    load_row<Plan>(x + row * cols, cols, fill, item);
  }
  __device__ A at(int64_t row, int64_t c, int64_t cols) const {
    return ::d2l::load(x[row * cols + c]);
  }
  template <class Plan>
  __device__ void store(const A (&item)[Plan::kItems], int64_t row, int cols) const {
    store_row<Plan>(item, cols, dx + row * cols);
  }
  __device__ void put(A value, int64_t row, int64_t c, int64_t cols) const {
    dx[row * cols + c] = ::d2l::store<T>(value);
  }
};

struct LayerNormCuda {
  typedef LayerNormParams Params;
  static constexpr const char* kName = "layer_norm";

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    return backward ? layer_norm_workspace(in[0].shape, in[0].dtype) : 0;
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs;
    return layer_norm_forward<T>(ArrayRows<T>{data<T>(in[0]), nullptr}, data<T>(in[1]),
                                 data<T>(in[2]), rows_of(in[0].shape), cols_of(in[0].shape),
                                 static_cast<Acc<T>>(params.eps), data<T>(out[0]),
                                 data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), resources.stream);
  }

  template <class T>
  static int backward(const Params&, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs, *grad = call.grad_inputs;
    return layer_norm_backward<T>(ArrayRows<T>{data<T>(in[0]), data<T>(grad[0])},
                                  data<T>(call.grad_outputs[0]), data<T>(in[1]),
                                  data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), rows_of(in[0].shape),
                                  cols_of(in[0].shape), data<T>(grad[1]), data<T>(grad[2]),
                                  static_cast<Acc<T>*>(resources.workspace), resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(LayerNormCuda);

}  // namespace D2L_ISA
}  // namespace d2l
