// The CUDA twin of bias_activation.h: same formulas, and nothing saved.
//
// A block has a tile of 32 columns and rows_per_block(rows) rows in hand: a warp reads 32
// neighbours of one row, and the kRowLanes warps of the block every kRowLanes-th row.  In backward
// a block also sums dx over its rows, and leaves the sums in the workspace, as (parts, cols); a
// second kernel adds the parts.
#include "bias_activation.h"
#include "common/cuda.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kRowLanes = 16;

// The rows of a block.
struct RowSpan {
  int64_t first, last;
};

__device__ inline RowSpan rows_of_block(int64_t rows) {
  const int64_t first = blockIdx.y * rows_per_block(rows), end = first + rows_per_block(rows);
  return {first + threadIdx.y, end < rows ? end : rows};
}

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

template <class F, class T>
__global__ void __launch_bounds__(32 * kRowLanes)
    bias_activation_backward(const T* __restrict__ dy, const T* __restrict__ x,
                             const T* __restrict__ b, const T* __restrict__ y, int64_t rows,
                             int64_t cols, T* __restrict__ dx, Acc<T>* __restrict__ partial) {
  typedef Acc<T> A;
  typedef A Tile[kRowLanes][32];
  D2L_SHARED(tile, Tile);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  A sum = 0;
  if (c < cols) {
    const A bias = load(b[c]);
    const RowSpan span = rows_of_block(rows);
#pragma unroll 4
    for (int64_t r = span.first; r < span.last; r += kRowLanes) {
      const int64_t i = r * cols + c;
      const A d = bias_activation_dx<F>(load(dy[i]), load(x[i]), bias, load(y[i]));
      dx[i] = store<T>(d);
      sum += d;
    }
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= cols) return;
  for (int lane = 1; lane < kRowLanes; ++lane) sum += tile[lane][threadIdx.x];
  partial[blockIdx.y * cols + c] = sum;
}

// The gradient of the bias from its parts; without parts, zero.  Double for the reason given in
// sum_over_rows of the CPU.
template <class T>
__global__ void __launch_bounds__(32 * kRowLanes)
    bias_activation_add_parts(const Acc<T>* __restrict__ partial, int parts, int64_t cols,
                              T* __restrict__ db) {
  typedef double Tile[kRowLanes][32];
  D2L_SHARED(tile, Tile);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  double sum = 0;
  if (c < cols) {
#pragma unroll 4
    for (int part = threadIdx.y; part < parts; part += kRowLanes) sum += partial[part * cols + c];
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= cols) return;
  for (int lane = 1; lane < kRowLanes; ++lane) sum += tile[lane][threadIdx.x];
  db[c] = store<T>(static_cast<Acc<T>>(sum));
}

inline dim3 tiles(int64_t rows, int64_t cols) {
  return dim3(static_cast<unsigned>((cols + 31) / 32), static_cast<unsigned>(row_blocks(rows)));
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

template <class T>
struct BiasActivationBackwardCuda {
  const T *dy, *x, *b, *y;
  int64_t rows, cols;
  T *dx, *db;
  Acc<T>* workspace;
  void* stream;

  template <class F>
  int with() const {
    if (rows > 0) {
      const int status =
          launch(bias_activation_backward<F, T>, tiles(rows, cols), dim3(32, kRowLanes), stream, dy,
                 x, b, y, rows, cols, dx, workspace);
      if (status) return status;
    }
    const int parts = static_cast<int>(row_blocks(rows));
    return launch(bias_activation_add_parts<T>, tiles(1, cols), dim3(32, kRowLanes), stream,
                  workspace, parts, cols, db);
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
    if (cols_of(in[0].shape) == 0) return 0;
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
