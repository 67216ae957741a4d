// The gradients of an activation and of the bias added before it, for CUDA twins.
//
// A block has a tile of 32 columns and rows_per_block(rows) rows in hand: a warp reads 32
// neighbours of one row, and the kRowLanes warps of the block every kRowLanes-th row.
// It also sums dx over its rows, and leaves the sums in the workspace, as (parts, cols); a second
// kernel adds the parts.
#ifndef D2L_COMMON_BIAS_CUDA_H_
#define D2L_COMMON_BIAS_CUDA_H_

#include "activations.h"
#include "cuda.h"
#include "rows.h"

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

// dx as in bias_activation_dx, and its sums over the rows; only gelu looks at x and b.  dx and
// partial may be null: they are not wanted then.
template <class F, class T>
__global__ void __launch_bounds__(32 * kRowLanes)
    bias_activation_gradients(const T* __restrict__ dy, const T* __restrict__ x,
                              const T* __restrict__ b, const T* __restrict__ y, int64_t rows,
                              int64_t cols, T* __restrict__ dx, Acc<T>* __restrict__ partial) {
  typedef Acc<T> A;
  typedef A Tile[kRowLanes][32];
  D2L_SHARED(tile, Tile);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  A sum = 0;
  if (c < cols) {
    const A bias = F::kFromInput ? load(b[c]) : A(0);
    const RowSpan span = rows_of_block(rows);
#pragma unroll 4
    for (int64_t r = span.first; r < span.last; r += kRowLanes) {
      const int64_t i = r * cols + c;
      const A d =
          bias_activation_dx<F>(load(dy[i]), F::kFromInput ? load(x[i]) : A(0), bias, load(y[i]));
      if (dx) dx[i] = store<T>(d);
      sum += d;
    }
  }
  if (!partial) return;
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

// Both kernels, as a Run of run_activation.  db may be null; workspace: row_blocks(rows) * cols
// sums for it.
template <class T>
struct BiasActivationBackwardCuda {
  const T *dy, *x, *b, *y;
  int64_t rows, cols;
  T *dx, *db;
  Acc<T>* workspace;
  void* stream;

  template <class F>
  int with() const {
    if (cols == 0) return 0;
    Acc<T>* partial = db ? workspace : nullptr;
    if (rows > 0) {
      const int status = launch(bias_activation_gradients<F, T>, tiles(rows, cols),
                                dim3(32, kRowLanes), stream, dy, x, b, y, rows, cols, dx, partial);
      if (status) return status;
    }
    if (!db) return 0;
    const int parts = static_cast<int>(row_blocks(rows));
    return launch(bias_activation_add_parts<T>, tiles(1, cols), dim3(32, kRowLanes), stream,
                  partial, parts, cols, db);
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_BIAS_CUDA_H_
