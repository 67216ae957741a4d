// The CUDA twin of bias_activation.h: same formulas, and nothing saved; tiles and backward stand in
// common/bias_cuda.h.
#include "bias_activation.h"
#include "common/bias_cuda.h"

namespace d2l {
inline namespace D2L_ISA {

template <class F, class T>
__global__ void __launch_bounds__(32 * kRowLanes)
    bias_activation_forward(const T* __restrict__ x, const T* __restrict__ b, int64_t rows,
                            int64_t cols, T* __restrict__ y) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  if (c >= cols) return;
  const Acc<T> bias = load(b[c]);
  const RowSpan span = rows_of_block(rows);
#pragma unroll 4
  for (int64_t r = span.first; r < span.last; r += kRowLanes) {
    y[r * cols + c] = store<T>(F::apply(load(x[r * cols + c]) + bias));
  }
}

template <class T>
struct BiasActivationForwardCuda {
  const T *x, *b;
  int64_t rows, cols;
  T* y;
  void* stream;

  template <class F>
  int with() const {
    return launch(bias_activation_forward<F, T>, tiles(rows, cols), dim3(32, kRowLanes), stream, x,
                  b, rows, cols, y);
  }
};

struct BiasActivationCuda {
  typedef BiasActivationParams Params;
  static constexpr const char* kName = "bias_activation";

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    if (!backward) return 0;
    return row_blocks(rows_of(in[0].shape)) * cols_of(in[0].shape) * acc_size(in[0].dtype);
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* in = call.inputs;
    if (volume(in[0].shape) == 0) return 0;
    return run_activation(params.act_type,
                          BiasActivationForwardCuda<T>{data<T>(in[0]), data<T>(in[1]),
                                                       rows_of(in[0].shape), cols_of(in[0].shape),
                                                       data<T>(call.outputs[0]), resources.stream});
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    return run_activation(
        params.act_type,
        BiasActivationBackwardCuda<T>{data<T>(call.grad_outputs[0]), data<T>(in[0]), data<T>(in[1]),
                                      data<T>(call.outputs[0]), rows_of(in[0].shape),
                                      cols_of(in[0].shape), data<T>(grad[0]), data<T>(grad[1]),
                                      static_cast<Acc<T>*>(resources.workspace), resources.stream});
  }
};

D2L_REGISTER_CUDA_OP(BiasActivationCuda);

}  // namespace D2L_ISA
}  // namespace d2l
