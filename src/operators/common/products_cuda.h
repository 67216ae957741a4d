// The CUDA twin of products.h: same factors.
//
// A block of threads has a tile of one product in its registers, kOwn by kOwn entries a thread, and
// goes through depth kStep at a time: that part of both factors comes to shared memory, read along
// the rows in which it is stored.
#ifndef D2L_COMMON_PRODUCTS_CUDA_H_
#define D2L_COMMON_PRODUCTS_CUDA_H_

#include "cuda.h"
#include "products.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kProductThreads = 256;
constexpr int kTile = 64;
constexpr int kStep = 16;
constexpr int kOwn = 4;
constexpr int kThreadsOfRow = kTile / kOwn;

template <class A>
struct ProductTiles {
  A left[kStep][kTile + kOwn];  // + kOwn: what is stored along depth finds different banks
  A right[kStep][kTile + kOwn];
};

// to[k][i] = the entry (first + i, depth + k) of the factor, 0 where there is none.
template <class T, class A>
__device__ inline void load_product_tile(const Factor<T>& from, int64_t example, int64_t first,
                                         int64_t depth, A (&to)[kStep][kTile + kOwn]) {
  for (int n = threadIdx.x; n < kTile * kStep; n += kProductThreads) {
    const int i = from.transposed ? n % kTile : n / kStep;
    const int k = from.transposed ? n / kTile : n % kStep;
    const int64_t row = first + i, col = depth + k;
    to[k][i] = row < from.rows && col < from.cols ? load(*from.at(example, row, col)) : A(0);
  }
}

// right: the transposes of the right factors, so that both are read alike.  finish(sum, column) is
// what becomes of an entry.
template <class T, class Finish>
__global__ void __launch_bounds__(kProductThreads)
    product_tiles(Factor<T> left, Factor<T> right, int64_t count, int64_t row_tiles,
                  int64_t col_tiles, T* out, Finish finish) {
  typedef Acc<T> A;
  D2L_SHARED(tiles, ProductTiles<A>);
  const int own_row = threadIdx.x / kThreadsOfRow * kOwn,
            own_col = threadIdx.x % kThreadsOfRow * kOwn;
  for (int64_t t = blockIdx.x; t < count; t += gridDim.x) {
    const int64_t example = t / col_tiles / row_tiles;
    const int64_t row = t / col_tiles % row_tiles * kTile, col = t % col_tiles * kTile;
    A sum[kOwn][kOwn] = {};
    for (int64_t depth = 0; depth < left.cols; depth += kStep) {
      __syncthreads();
      load_product_tile(left, example, row, depth, tiles.left);
      load_product_tile(right, example, col, depth, tiles.right);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kStep; ++k) {
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
#pragma unroll
          for (int j = 0; j < kOwn; ++j) {
            sum[i][j] += tiles.left[k][own_row + i] * tiles.right[k][own_col + j];
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int64_t r = row + own_row + i;
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t c = col + own_col + j;
        if (r < left.rows && c < right.rows) {
          out[(example * left.rows + r) * right.rows + c] = store<T>(finish(sum[i][j], c));
        }
      }
    }
  }
}

// out (batch, a.rows, b.cols) = a b, of which finish makes the entries.
template <class T, class Finish>
int multiply(int64_t batch, const Factor<T>& a, const Factor<T>& b, T* out, void* stream,
             const Finish& finish) {
  const int64_t row_tiles = (a.rows + kTile - 1) / kTile, col_tiles = (b.cols + kTile - 1) / kTile;
  const int64_t count = batch * row_tiles * col_tiles;
  if (count == 0) return 0;
  return launch_rows(product_tiles<T, Finish>, kProductThreads, 1, count, stream, a, b.flipped(),
                     count, row_tiles, col_tiles, out, finish);
}

struct AsItIs {
  template <class A>
  __device__ A operator()(A sum, int64_t) const {
    return sum;
  }
};

template <class T>
int multiply(int64_t batch, const Factor<T>& a, const Factor<T>& b, T* out, void* stream) {
  return multiply(batch, a, b, out, stream, AsItIs());
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_PRODUCTS_CUDA_H_
