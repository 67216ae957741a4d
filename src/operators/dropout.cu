// The CUDA twin of dropout.h: the same mask, from the same numbers.
//
// A thread has the four words of one counter, which decide over eight elements; neighbouring
// threads have neighbouring elements.
#include "common/cuda.h"
#include "dropout.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kDropoutThreads = 256;

template <class T>
__global__ void __launch_bounds__(kDropoutThreads)
    drop_out(const T* __restrict__ x, const float* __restrict__ state, double p, int64_t n,
             T* __restrict__ y) {
  D2L_SHARED(shared, Dropout);
  if (threadIdx.x == 0) shared = dropout_of(state, p);
  __syncthreads();
  const Dropout dropout = shared;
  const Acc<T> scale = static_cast<Acc<T>>(dropout.scale);
  const int64_t counters = (n + kDropoutBlock - 1) / kDropoutBlock * kRandomCounters;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kDropoutThreads;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * kDropoutThreads + threadIdx.x; t < counters;
       t += step) {
    // The first element, its row and column, and the counter within the row.
    const int64_t first = t / kRandomCounters * kDropoutBlock + t % kRandomCounters;
    const uint64_t row = first / kDropoutRow;
    const uint32_t column = static_cast<uint32_t>(first % kDropoutRow);
    const uint32_t counter = column / kDropoutBlock * kRandomCounters + column % kRandomCounters;
    uint32_t word[4] = {counter, static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32), 0};
    if (dropout.active) philox(dropout.seed, word);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int ahead = k % 4 * kRandomCounters + k / 4 * kRandomBlock;
      const int64_t i = first + ahead;
      if (i >= n) continue;
      const uint32_t upper = k < 4 ? word[k % 4] & 0xffffu : word[k % 4] >> 16;
      if (!dropout.active) {
        y[i] = x[i];
      } else {
        y[i] = store<T>(
            dropped(load(x[i]), keeps(dropout, upper, row, column + ahead) ? scale : Acc<T>(0)));
      }
    }
  }
}

struct DropoutCuda {
  typedef DropoutParams Params;
  static constexpr const char* kName = "dropout";

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int run(const Params& params, const Tensor& x, const Tensor& seed, const Tensor& y,
                 void* stream) {
    const int64_t n = volume(x.shape);
    if (n == 0) return 0;
    const int64_t counters = (n + kDropoutBlock - 1) / kDropoutBlock * kRandomCounters;
    return launch_rows(drop_out<T>, kDropoutThreads, kDropoutThreads, counters, stream, data<T>(x),
                       data<float>(seed), params.p, n, data<T>(y));
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    return run<T>(params, call.inputs[0], call.inputs[1], call.outputs[0], resources.stream);
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    if (int status = zero(call.grad_inputs[1], resources.stream)) return status;
    return run<T>(params, call.grad_outputs[0], call.inputs[1], call.grad_inputs[0],
                  resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(DropoutCuda);

}  // namespace D2L_ISA
}  // namespace d2l
