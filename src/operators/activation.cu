// The CUDA twin of activation.h: same formulas, and nothing saved.
//
// Threads load and store packs of 16 bytes where the arrays are aligned for them, and the rest one
// by one.
#include "activation.h"
#include "common/cuda.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kElementThreads = 256;

__device__ inline int64_t thread_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * kElementThreads + threadIdx.x;
}

__device__ inline int64_t threads_of_grid() {
  return static_cast<int64_t>(gridDim.x) * kElementThreads;
}

template <class F, class T, int kVector>
__global__ void __launch_bounds__(kElementThreads)
    activation_forward(const T* __restrict__ x, int64_t n, T* __restrict__ y) {
  typedef Pack<T, kVector> P;
  const int64_t packs = n / kVector;
  for (int64_t p = thread_of_grid(); p < packs; p += threads_of_grid()) {
    P pack = reinterpret_cast<const P*>(x)[p];
#pragma unroll
    for (int j = 0; j < kVector; ++j) pack.value[j] = store<T>(F::apply(load(pack.value[j])));
    reinterpret_cast<P*>(y)[p] = pack;
  }
  for (int64_t i = packs * kVector + thread_of_grid(); i < n; i += threads_of_grid()) {
    y[i] = store<T>(F::apply(load(x[i])));
  }
}

template <class F, class T, int kVector>
__global__ void __launch_bounds__(kElementThreads)
    activation_backward(const T* __restrict__ dy, const T* __restrict__ saved, int64_t n,
                        T* __restrict__ dx) {
  typedef Pack<T, kVector> P;
  const int64_t packs = n / kVector;
  for (int64_t p = thread_of_grid(); p < packs; p += threads_of_grid()) {
    P pack = reinterpret_cast<const P*>(dy)[p];
    const P kept = reinterpret_cast<const P*>(saved)[p];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      pack.value[j] = store<T>(F::gradient(load(kept.value[j]), load(pack.value[j])));
    }
    reinterpret_cast<P*>(dx)[p] = pack;
  }
  for (int64_t i = packs * kVector + thread_of_grid(); i < n; i += threads_of_grid()) {
    dx[i] = store<T>(F::gradient(load(saved[i]), load(dy[i])));
  }
}

// Launches one of the two kernels above; of its two forms the one for packs if these are aligned.
template <class... Params>
int launch_elements(void (*packed)(Params...), void (*single)(Params...), bool packs, int vector,
                    int64_t n, void* stream, typename Identity<Params>::type... args) {
  const auto kernel = packs ? packed : single;
  const int64_t of_block = static_cast<int64_t>(kElementThreads) * (packs ? vector : 1);
  int blocks;
  const int64_t needed = (n + of_block - 1) / of_block;
  if (int status = resident_blocks(kernel, kElementThreads, needed, &blocks)) return status;
  return launch(kernel, blocks, kElementThreads, stream, args...);
}

template <class T>
struct ActivationForwardCuda {
  const T* x;
  int64_t n;
  T* y;
  void* stream;

  template <class F>
  int with() const {
    constexpr int kVector = 16 / sizeof(T);
    return launch_elements(activation_forward<F, T, kVector>, activation_forward<F, T, 1>,
                           aligned(16, {x, y}), kVector, n, stream, x, n, y);
  }
};

template <class T>
struct ActivationBackwardCuda {
  const T *dy, *x, *y;
  int64_t n;
  T* dx;
  void* stream;

  template <class F>
  int with() const {
    constexpr int kVector = 16 / sizeof(T);
    const T* saved = F::kFromInput ? x : y;
    return launch_elements(activation_backward<F, T, kVector>, activation_backward<F, T, 1>,
                           aligned(16, {dy, saved, dx}), kVector, n, stream, dy, saved, n, dx);
  }
};

struct ActivationCuda {
  typedef ActivationParams Params;
  static constexpr const char* kName = "activation";

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const int64_t n = volume(call.inputs[0].shape);
    if (n == 0) return 0;
    return run_activation(params.act_type,
                          ActivationForwardCuda<T>{data<T>(call.inputs[0]), n,
                                                   data<T>(call.outputs[0]), resources.stream});
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const int64_t n = volume(call.inputs[0].shape);
    if (n == 0) return 0;
    return run_activation(params.act_type, ActivationBackwardCuda<T>{
                                               data<T>(call.grad_outputs[0]),
                                               data<T>(call.inputs[0]), data<T>(call.outputs[0]), n,
                                               data<T>(call.grad_inputs[0]), resources.stream});
  }
};

D2L_REGISTER_CUDA_OP(ActivationCuda);

}  // namespace D2L_ISA
}  // namespace d2l
