// The CUDA kernels of layer normalization, for layer_norm.cu and add_norm.cu: same formulas, layout
// and saved statistics as layer_norm.h.
//
// Rows of up to 8192 columns stay in registers: x is read once and y written once, which is all the
// traffic there must be.  Longer rows, and doubles, are read several times (from the cache,
// mostly).  In backward the blocks that compute dx also sum dgamma and dbeta over their rows, also
// in registers, and leave them in the workspace, as (parts, 2, cols); a second kernel adds the
// parts.
//
// What is normalized comes from a Source, which knows how to make a row of x and what to do with
// one of dx:
//
//   kRegisters                   that it needs for each item of a thread, beyond x itself
//   start()                      called by all threads of a block, first of all
//   load<Plan>(row, cols, fill, item), at(row, c, cols)           a row of x, and an entry of it
//   store<Plan>(item, row, cols), put(value, row, c, cols)        the same of dx
//   aligned_to(bytes)            on the host: whether packs of that size may be read and written
#ifndef D2L_COMMON_NORM_CUDA_H_
#define D2L_COMMON_NORM_CUDA_H_

#include <math.h>

#include "../layer_norm.h"
#include "cuda.h"

namespace d2l {
inline namespace D2L_ISA {

// sums: of the deviations from first, and of their squares; see layer_norm_moments.
template <class A>
__device__ inline void layer_norm_statistics(A first, const A (&sums)[2], A scale, A eps, A* mean,
                                             A* rstd) {
  const A correction = sums[0] * scale;
  *mean = first + correction;
  *rstd = A(1) / sqrt(sums[1] * scale - correction * correction + eps);
}

template <class T, class Source, class Plan>
__global__ void __launch_bounds__(Plan::kBlock, Plan::blocks(4 + Source::kRegisters))
    layer_norm_forward_rows(Source source, const T* __restrict__ gamma, const T* __restrict__ beta,
                            int64_t rows, int cols, Acc<T> eps, T* __restrict__ y,
                            Acc<T>* __restrict__ mean, Acc<T>* __restrict__ rstd) {
  typedef Acc<T> A;
  source.start();
  typedef RowReduction<A, Plan::kThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  const A scale = A(1) / A(cols);
  for (int64_t row = Plan::first_row(); row < rows; row += Plan::row_step()) {
    A item[Plan::kItems];
    source.template load<Plan>(row, cols, A(0), item);
    A first[1] = {0};
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) first[0] += item[i];
    reduce(first, Sum());
    first[0] *= scale;
    A sums[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      if (Plan::column(i) >= cols) continue;
      const A deviation = item[i] - first[0];
      sums[0] += deviation;
      sums[1] += deviation * deviation;
    }
    reduce(sums, Sum());
    A mu, rs;
    layer_norm_statistics(first[0], sums, scale, eps, &mu, &rs);
    A g[Plan::kItems], b[Plan::kItems];
    load_row<Plan>(gamma, cols, A(0), g);
    load_row<Plan>(beta, cols, A(0), b);
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) item[i] = layer_norm_xhat(item[i], mu, rs) * g[i] + b[i];
    store_row<Plan>(item, cols, y + row * cols);
    if (Plan::thread() == 0) {
      mean[row] = mu;
      rstd[row] = rs;
    }
  }
}

template <class T, class Source>
__global__ void __launch_bounds__(kLongThreads)
    layer_norm_forward_long(Source source, const T* __restrict__ gamma, const T* __restrict__ beta,
                            int64_t rows, int64_t cols, Acc<T> eps, T* __restrict__ y,
                            Acc<T>* __restrict__ mean, Acc<T>* __restrict__ rstd) {
  typedef Acc<T> A;
  source.start();
  typedef RowReduction<A, kLongThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  const A scale = A(1) / A(cols);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    A first[1] = {0};
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) first[0] += source.at(row, c, cols);
    reduce(first, Sum());
    first[0] *= scale;
    A sums[2] = {0, 0};
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) {
      const A deviation = source.at(row, c, cols) - first[0];
      sums[0] += deviation;
      sums[1] += deviation * deviation;
    }
    reduce(sums, Sum());
    A mu, rs;
    layer_norm_statistics(first[0], sums, scale, eps, &mu, &rs);
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) {
      const A xhat = layer_norm_xhat(source.at(row, c, cols), mu, rs);
      y[row * cols + c] = store<T>(xhat * load(gamma[c]) + load(beta[c]));
    }
    if (threadIdx.x == 0) {
      mean[row] = mu;
      rstd[row] = rs;
    }
  }
}

// Writes dx, and to partial[block] the sums of dgamma and of dbeta over the block's rows.
template <class T, class Source, class Plan>
__global__ void __launch_bounds__(Plan::kBlock, Plan::blocks(6 + Source::kRegisters))
    layer_norm_backward_rows(Source source, const T* __restrict__ dy, const T* __restrict__ gamma,
                             const Acc<T>* __restrict__ mean, const Acc<T>* __restrict__ rstd,
                             int64_t rows, int cols, Acc<T>* __restrict__ partial) {
  typedef Acc<T> A;
  source.start();
  constexpr int kItems = Plan::kItems;
  typedef RowReduction<A, Plan::kThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  const A scale = A(1) / A(cols);
  A dgamma[kItems], dbeta[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) dgamma[i] = dbeta[i] = 0;
  for (int64_t row = Plan::first_row(); row < rows; row += Plan::row_step()) {
    const A mu = mean[row], rs = rstd[row];
    A h[kItems], xhat[kItems], g[kItems];
    load_row<Plan>(dy + row * cols, cols, A(0), h);
    source.template load<Plan>(row, cols, mu, xhat);
    load_row<Plan>(gamma, cols, A(0), g);
    A sums[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      xhat[i] = layer_norm_xhat(xhat[i], mu, rs);
      dgamma[i] += h[i] * xhat[i];
      dbeta[i] += h[i];
      h[i] *= g[i];
      sums[0] += h[i];
      sums[1] += h[i] * xhat[i];
    }
    reduce(sums, Sum());
    const A mean_h = sums[0] * scale, mean_h_xhat = sums[1] * scale;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      h[i] = layer_norm_dx(h[i], xhat[i], rs, mean_h, mean_h_xhat);
    }
    source.template store<Plan>(h, row, cols);
  }
  // The groups of the block add their sums one after the other; the last of them writes.
  constexpr int kTile = Plan::kRows > 1 ? Plan::kThreads : 1;
  typedef A Tile[2][kItems][kTile];
  D2L_SHARED(tile, Tile);
  for (int turn = 0; turn < Plan::kRows; ++turn) {
    if (Plan::group() == turn) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        if (turn > 0) {
          dgamma[i] += tile[0][i][Plan::thread()];
          dbeta[i] += tile[1][i][Plan::thread()];
        }
        if (turn < Plan::kRows - 1) {
          tile[0][i][Plan::thread()] = dgamma[i];
          tile[1][i][Plan::thread()] = dbeta[i];
        } else if (Plan::column(i) < cols) {
          A* sum = partial + static_cast<int64_t>(blockIdx.x) * 2 * cols + Plan::column(i);
          sum[0] = dgamma[i];
          sum[cols] = dbeta[i];
        }
      }
    }
    __syncthreads();
  }
}

template <class T, class Source>
__global__ void __launch_bounds__(kLongThreads)
    layer_norm_backward_long(Source source, const T* __restrict__ dy, const T* __restrict__ gamma,
                             const Acc<T>* __restrict__ mean, const Acc<T>* __restrict__ rstd,
                             int64_t rows, int64_t cols) {
  typedef Acc<T> A;
  source.start();
  typedef RowReduction<A, kLongThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  const A scale = A(1) / A(cols);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* dyr = dy + row * cols;
    const A mu = mean[row], rs = rstd[row];
    A sums[2] = {0, 0};
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) {
      const A h = load(dyr[c]) * load(gamma[c]);
      sums[0] += h;
      sums[1] += h * layer_norm_xhat(source.at(row, c, cols), mu, rs);
    }
    reduce(sums, Sum());
    const A mean_h = sums[0] * scale, mean_h_xhat = sums[1] * scale;
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) {
      const A h = load(dyr[c]) * load(gamma[c]);
      const A xhat = layer_norm_xhat(source.at(row, c, cols), mu, rs);
      source.put(layer_norm_dx(h, xhat, rs, mean_h, mean_h_xhat), row, c, cols);
    }
  }
}

// Sums over rows work on tiles of 32 columns: a warp reads 32 neighbours of one row, and the
// kRowLanes warps of the block every kRowLanes-th row.
constexpr int kRowLanes = 16;

// dgamma and dbeta of rows_per_block(rows) rows, for each of the grid's y.
template <class T, class Source>
__global__ void __launch_bounds__(32 * kRowLanes)
    layer_norm_partial_sums(Source source, const T* __restrict__ dy,
                            const Acc<T>* __restrict__ mean, const Acc<T>* __restrict__ rstd,
                            int64_t rows, int64_t cols, Acc<T>* __restrict__ partial) {
  typedef Acc<T> A;
  source.start();
  typedef A Tile[2][kRowLanes][32];
  D2L_SHARED(tile, Tile);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const int64_t first = blockIdx.y * rows_per_block(rows), end = first + rows_per_block(rows);
  const int64_t last = end < rows ? end : rows;
  A dgamma = 0, dbeta = 0;
  if (c < cols) {
    for (int64_t row = first + threadIdx.y; row < last; row += kRowLanes) {
      const A g = load(dy[row * cols + c]);
      dgamma += g * layer_norm_xhat(source.at(row, c, cols), mean[row], rstd[row]);
      dbeta += g;
    }
  }
  tile[0][threadIdx.y][threadIdx.x] = dgamma;
  tile[1][threadIdx.y][threadIdx.x] = dbeta;
  __syncthreads();
  if (threadIdx.y > 0 || c >= cols) return;
  for (int lane = 1; lane < kRowLanes; ++lane) {
    dgamma += tile[0][lane][threadIdx.x];
    dbeta += tile[1][lane][threadIdx.x];
  }
  partial[blockIdx.y * 2 * cols + c] = dgamma;
  partial[(blockIdx.y * 2 + 1) * cols + c] = dbeta;
}

// dgamma and dbeta from their parts; without parts, zero.  Double for the reason given in
// layer_norm_backward of the CPU.
template <class T>
__global__ void __launch_bounds__(32 * kRowLanes)
    layer_norm_add_parts(const Acc<T>* __restrict__ partial, int parts, int64_t cols,
                         T* __restrict__ dgamma, T* __restrict__ dbeta) {
  typedef double Tile[kRowLanes][32];
  D2L_SHARED(tile, Tile);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  double sum = 0;
  if (c < 2 * cols) {
#pragma unroll 4
    for (int part = threadIdx.y; part < parts; part += kRowLanes) {
      sum += partial[part * 2 * cols + c];
    }
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= 2 * cols) return;
  for (int lane = 1; lane < kRowLanes; ++lane) sum += tile[lane][threadIdx.x];
  const T total = store<T>(static_cast<Acc<T>>(sum));
  if (c < cols) {
    dgamma[c] = total;
  } else {
    dbeta[c - cols] = total;
  }
}

template <class T, class Source>
struct LayerNormForward {
  Source source;
  const T *gamma, *beta;
  int64_t rows, cols;
  Acc<T> eps;
  T* y;
  Acc<T>* mean;
  Acc<T>* rstd;
  void* stream;

  bool aligned_to(int bytes) const {
    return source.aligned_to(bytes) && aligned(bytes, {gamma, beta, y});
  }

  template <class Plan>
  int short_rows() const {
    return launch_rows(layer_norm_forward_rows<T, Source, Plan>, Plan::kBlock, Plan::kRows, rows,
                       stream, source, gamma, beta, rows, cols, eps, y, mean, rstd);
  }
  int long_rows() const {
    return launch_rows(layer_norm_forward_long<T, Source>, kLongThreads, 1, rows, stream, source,
                       gamma, beta, rows, cols, eps, y, mean, rstd);
  }
};

template <class T, class Source>
int layer_norm_forward(const Source& source, const T* gamma, const T* beta, int64_t rows,
                       int64_t cols, Acc<T> eps, T* y, Acc<T>* mean, Acc<T>* rstd, void* stream) {
  if (rows == 0) return 0;
  return run_by_row<T>(cols, LayerNormForward<T, Source>{source, gamma, beta, rows, cols, eps, y,
                                                         mean, rstd, stream});
}

// The most parts in which backward may sum dgamma and dbeta: what a device of 160 multiprocessors
// with 1024 threads each has in hand, and fewer if a group would get less than four rows, since
// then the parts would be a large share of the traffic.
struct LayerNormParts {
  int64_t rows;
  bool packs;

  bool aligned_to(int) const { return packs; }

  template <class Plan>
  int short_rows() const {
    const int64_t useful = (rows + 4 * Plan::kRows - 1) / (4 * Plan::kRows);
    const int64_t most = 160 * 1024 / Plan::kBlock;
    return static_cast<int>(useful < most ? useful : most);
  }
  int long_rows() const { return static_cast<int>(row_blocks(rows)); }
};

template <class T, class Source>
struct LayerNormBackward {
  Source source;
  const T *dy, *gamma;
  const Acc<T>* mean;
  const Acc<T>* rstd;
  int64_t rows, cols;
  Acc<T>* partial;
  void* stream;
  int* parts;  // result: how many there are

  bool aligned_to(int bytes) const {
    return source.aligned_to(bytes) && aligned(bytes, {dy, gamma});
  }

  template <class Plan>
  int short_rows() const {
    const auto kernel = layer_norm_backward_rows<T, Source, Plan>;
    const int most = LayerNormParts{rows, true}.template short_rows<Plan>();
    if (int status = resident_blocks(kernel, Plan::kBlock, most, parts)) return status;
    return launch(kernel, *parts, Plan::kBlock, stream, source, dy, gamma, mean, rstd, rows, cols,
                  partial);
  }
  int long_rows() const {
    if (int status = launch_rows(layer_norm_backward_long<T, Source>, kLongThreads, 1, rows, stream,
                                 source, dy, gamma, mean, rstd, rows, cols)) {
      return status;
    }
    *parts = LayerNormParts{rows, false}.long_rows();
    const dim3 grid(static_cast<unsigned>((cols + 31) / 32), *parts);
    return launch(layer_norm_partial_sums<T, Source>, grid, dim3(32, kRowLanes), stream, source, dy,
                  mean, rstd, rows, cols, partial);
  }
};

// workspace: layer_norm_workspace() bytes.
template <class T, class Source>
int layer_norm_backward(const Source& source, const T* dy, const T* gamma, const Acc<T>* mean,
                        const Acc<T>* rstd, int64_t rows, int64_t cols, T* dgamma, T* dbeta,
                        Acc<T>* workspace, void* stream) {
  if (cols == 0) return 0;
  int parts = 0;
  if (rows > 0) {
    const int status =
        run_by_row<T>(cols, LayerNormBackward<T, Source>{source, dy, gamma, mean, rstd, rows, cols,
                                                         workspace, stream, &parts});
    if (status) return status;
  }
  const dim3 grid(static_cast<unsigned>((2 * cols + 31) / 32));
  return launch(layer_norm_add_parts<T>, grid, dim3(32, kRowLanes), stream, workspace, parts, cols,
                dgamma, dbeta);
}

// The bytes that backward needs, for any alignment: MXNet asks before there are arrays.
template <class A>
int64_t layer_norm_workspace(int64_t rows, int64_t cols) {
  const int packs = run_by_row<A>(cols, LayerNormParts{rows, true});
  const int singles = run_by_row<A>(cols, LayerNormParts{rows, false});
  return (packs > singles ? packs : singles) * 2 * cols * static_cast<int64_t>(sizeof(A));
}

inline int64_t layer_norm_workspace(const Shape& shape, DType dtype) {
  const int64_t rows = rows_of(shape), cols = cols_of(shape);
  return dtype == DType::kFloat64 ? layer_norm_workspace<double>(rows, cols)
                                  : layer_norm_workspace<float>(rows, cols);
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_NORM_CUDA_H_
