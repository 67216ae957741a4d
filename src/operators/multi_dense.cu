// The CUDA twin of multi_dense.h: the products of common/products_cuda.h, layer by layer.
#include "common/bias_cuda.h"
#include "common/products_cuda.h"
#include "multi_dense.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kAddThreads = 256;

// What becomes of a sum: an entry of y.
template <class T>
struct AddBias {
  const T* b;  // may be null

  __device__ Acc<T> operator()(Acc<T> sum, int64_t c) const { return b ? sum + load(b[c]) : sum; }
};

template <class T>
__global__ void __launch_bounds__(kAddThreads)
    multi_dense_add(const T* __restrict__ part, int64_t count, T* __restrict__ dx) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kAddThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kAddThreads + threadIdx.x;
  for (; i < count; i += stride) dx[i] = store<T>(load(dx[i]) + load(part[i]));
}

struct MultiDenseCuda {
  typedef MultiDenseParams Params;
  static constexpr const char* kName = "multi_dense";

  // In backward the sums of one layer's dy, if it has a bias, then one layer's share of dx.
  static int64_t sums(const Tensor* in) {
    int64_t most = 0;
    for (int i = 0; i < num_layers(in); ++i) {
      if (!given(in[bias_of(i)])) continue;
      most = row_blocks(rows_of(in[0].shape)) * in[weight_of(i)].shape.dim[0];
    }
    return most;
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    if (!backward) return 0;
    return sums(in) * acc_size(in[0].dtype) + volume(in[0].shape) * size_of(in[0].dtype);
  }

  template <class T>
  static int forward(const Params&, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs;
    const int layers = num_layers(in);
    for (int i = 0; i < layers; ++i) {
      const DenseArrays<T> on = arrays_of_layer<T>(in, i);
      const int status = multiply(1, on.data(), on.weight().flipped(), data<T>(out[i]),
                                  resources.stream, AddBias<T>{on.b});
      if (status) return status;
    }
    if (layers == kMostLayers) return 0;
    return zero(out[layers], resources.stream);
  }

  template <class T>
  static int backward(const Params&, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    const int64_t count = volume(in[0].shape);
    T* dx = data<T>(grad[0]);
    T* part = reinterpret_cast<T*>(static_cast<Acc<T>*>(resources.workspace) + sums(in));
    for (int i = 0; i < num_layers(in); ++i) {
      const DenseArrays<T> on = arrays_of_layer<T>(in, i);
      const T* dy = data<T>(call.grad_outputs[i]);
      if (on.b) {
        const BiasActivationBackwardCuda<T> run = {dy,
                                                   nullptr,
                                                   nullptr,
                                                   data<T>(call.outputs[i]),
                                                   on.rows,
                                                   on.units,
                                                   nullptr,
                                                   data<T>(grad[bias_of(i)]),
                                                   static_cast<Acc<T>*>(resources.workspace),
                                                   resources.stream};
        if (int status = run.template with<Linear>()) return status;
      }
      const Factor<T> g = {dy, on.rows, on.units, false};
      int status = multiply(1, g, on.weight(), i > 0 ? part : dx, resources.stream);
      if (status) return status;
      status = multiply(1, g.flipped(), on.data(), data<T>(grad[weight_of(i)]), resources.stream);
      if (status) return status;
      if (i == 0 || count == 0) continue;
      status = launch_rows(multi_dense_add<T>, kAddThreads, kAddThreads, count, resources.stream,
                           part, count, dx);
      if (status) return status;
    }
    return 0;
  }
};

D2L_REGISTER_CUDA_OP(MultiDenseCuda);

}  // namespace D2L_ISA
}  // namespace d2l
