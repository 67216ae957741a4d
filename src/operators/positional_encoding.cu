// The CUDA twin of positional_encoding.h: every pair of columns is computed, without a table.
#include "common/cuda.h"
#include "positional_encoding.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kPositionThreads = 256;

// A thread has one sine and the cosine beside it; neighbouring threads have neighbouring pairs.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    write_codes(int64_t past, int64_t steps, int64_t cols, T* __restrict__ y) {
  const int64_t pairs = (cols + 1) / 2;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPositionThreads;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * kPositionThreads + threadIdx.x;
       t < steps * pairs; t += step) {
    const int64_t row = t / pairs, pair = t % pairs;
    double sine, cosine;
    sincos((past + row) / wavelength(pair, cols), &sine, &cosine);
    T* at = y + row * cols + 2 * pair;
    at[0] = narrow<T>(sine);
    if (2 * pair + 1 < cols) at[1] = narrow<T>(cosine);
  }
}

struct PositionalEncodingCuda {
  typedef PositionalEncodingParams Params;
  static constexpr const char* kName = "positional_encoding";
  static constexpr bool kByOutput = true;

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor& y = call.outputs[0];
    const int64_t steps = y.shape.dim[1], cols = params.num_hiddens;
    if (steps == 0) return 0;
    return launch_rows(write_codes<T>, kPositionThreads, kPositionThreads, steps * ((cols + 1) / 2),
                       resources.stream, past_steps(call.inputs[1]), steps, cols, data<T>(y));
  }

  template <class T>
  static int backward(const Params&, const Call& call, const Resources& resources) {
    for (int i = 0; i < 2; ++i) {
      if (!given(call.grad_inputs[i])) continue;
      if (int status = zero(call.grad_inputs[i], resources.stream)) return status;
    }
    return 0;
  }
};

D2L_REGISTER_CUDA_OP(PositionalEncodingCuda);

}  // namespace D2L_ISA
}  // namespace d2l
