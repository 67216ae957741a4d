// What the CUDA twins of attention with any kind of scores share: tiles, forward, and what backward
// makes ready.
//
// A block of 8 warps has kRows queries of one head (or keys, for their gradients) in hand, four a
// warp, and goes through the keys (or queries) kLanesOfTile at a time, one a lane.  Sums over
// features come in chunks of kChunk features through shared memory, so any number of features will
// do; a block writes kColumns columns of its results, and there are as many blocks as chunks of
// columns.
#ifndef D2L_COMMON_ATTENTION_CUDA_H_
#define D2L_COMMON_ATTENTION_CUDA_H_

#include <float.h>

#include "attention_blocks.h"
#include "cuda.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kAttentionThreads = 256;
constexpr int kRows = 32;  // of a block
constexpr int kRowsOfWarp = kRows / (kAttentionThreads / 32);
constexpr int kLanesOfTile = 32;
constexpr int kChunk = 32;
constexpr int kColumns = 64;
constexpr int kItems = kColumns / 32;  // columns of a lane

// A matrix of one head: rows of width values, stride apart.
template <class T>
struct HeadRows {
  T* data;
  int64_t stride, rows, width;
};

template <class A>
struct AttentionTiles {
  A rows[kRows][kChunk + 1];  // + 1: lanes that read a column find it in different banks
  A lanes[kLanesOfTile][kChunk + 1];
  A columns[kLanesOfTile][kColumns];
  A weights[kRows][kLanesOfTile];
  int64_t count[kRows];
};

// to[r][c] = from[first + r][column + c], 0 where there is nothing.
template <class T, class A, int kHeight, int kWidth, int kStride>
__device__ inline void load_tile(const HeadRows<T>& from, int64_t first, int64_t column,
                                 A (&to)[kHeight][kStride]) {
  for (int i = threadIdx.x; i < kHeight * kWidth; i += kAttentionThreads) {
    const int64_t r = first + i / kWidth, c = column + i % kWidth;
    to[i / kWidth][i % kWidth] =
        r < from.rows && c < from.width ? load(from.data[r * from.stride + c]) : A(0);
  }
}

// The term of a scalar product.
struct ProductTerm {
  template <class A>
  __device__ A operator()(A a, A b, int64_t) const {
    return a * b;
  }
};

// sum[r] = the sum over columns c of term(rows[first_row + 4 warp + r][c], lanes[first_lane +
// lane][c], c).  Columns come in whole chunks: beyond the last, both are 0, and so must the term
// be.  All threads must call.
template <class T, class A, class Term>
__device__ inline void sum_tile(const HeadRows<T>& rows, int64_t first_row,
                                const HeadRows<T>& lanes, int64_t first_lane, const Term& term,
                                AttentionTiles<A>* tiles, A (&sum)[kRowsOfWarp]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) sum[r] = A(0);
  for (int64_t c = 0; c < rows.width; c += kChunk) {
    __syncthreads();
    load_tile<T, A, kRows, kChunk>(rows, first_row, c, tiles->rows);
    load_tile<T, A, kLanesOfTile, kChunk>(lanes, first_lane, c, tiles->lanes);
    __syncthreads();
    for (int i = 0; i < kChunk; ++i) {
      const A x = tiles->lanes[lane][i];
#pragma unroll
      for (int r = 0; r < kRowsOfWarp; ++r) {
        sum[r] += term(tiles->rows[warp * kRowsOfWarp + r][i], x, c + i);
      }
    }
  }
}

// sum[r][i] += the sum over lanes of weight[r] of that lane * from[first + lane][column ...], for
// the columns lane + 32 i.  All threads must call.
template <class T, class A>
__device__ inline void add_weighted(const HeadRows<T>& from, int64_t first, int64_t column,
                                    const A (&weight)[kRowsOfWarp], AttentionTiles<A>* tiles,
                                    A (&sum)[kRowsOfWarp][kItems]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();
  load_tile<T, A, kLanesOfTile, kColumns>(from, first, column, tiles->columns);
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) tiles->weights[warp * kRowsOfWarp + r][lane] = weight[r];
  __syncthreads();
  for (int j = 0; j < kLanesOfTile; ++j) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const A x = tiles->columns[j][lane + 32 * i];
#pragma unroll
      for (int r = 0; r < kRowsOfWarp; ++r) {
        sum[r][i] += tiles->weights[warp * kRowsOfWarp + r][j] * x;
      }
    }
  }
}

// What a block works on: one head, a tile of its rows, a chunk of columns.
struct AttentionBlock {
  int64_t b, head, first, column;

  __device__ AttentionBlock(const AttentionSizes& size, int64_t tiles, int64_t chunks) {
    int64_t i = blockIdx.x;
    column = i % chunks * kColumns;
    i /= chunks;
    first = i % tiles * kRows;
    i /= tiles;
    head = i % size.heads;
    b = i / size.heads;
  }
};

template <class T>
__device__ inline HeadRows<T> rows_of_head(T* data, const AttentionSizes& size,
                                           const AttentionBlock& block, int64_t steps,
                                           int64_t width) {
  const int64_t stride = size.heads * width;
  return {data + block.b * steps * stride + block.head * width, stride, steps, width};
}

// Sets the counts of kRows queries, -1 beyond the last; returns how many keys they reach, where one
// without keys of its own reaches all.  All threads must call.
template <class T, class A>
__device__ inline int64_t load_counts(const AttentionInputs<T>& in, int64_t b, int64_t first,
                                      AttentionTiles<A>* tiles) {
  __syncthreads();
  if (threadIdx.x < kRows) {
    const int64_t query = first + threadIdx.x;
    tiles->count[threadIdx.x] = query < in.size.queries ? attention_count(in, b, query) : -1;
  }
  __syncthreads();
  int64_t reach = 0;
  for (int r = 0; r < kRows; ++r) {
    const int64_t n = tiles->count[r] == 0 ? in.size.keys : tiles->count[r];
    reach = n > reach ? n : reach;
  }
  return reach;
}

// Whether a query of this count looks at a key.
template <class T>
__device__ inline bool looks_at(const AttentionInputs<T>& in, int64_t count, int64_t key) {
  return key < (count == 0 ? in.size.keys : count);
}

// Columns column + lane + 32 i of rows first + 4 warp + r.
template <class T, class A>
__device__ inline void store_sums(const A (&sum)[kRowsOfWarp][kItems], const HeadRows<T>& to,
                                  int64_t first, int64_t column) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    const int64_t row = first + warp * kRowsOfWarp + r;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int64_t c = column + lane + 32 * i;
      if (row < to.rows && c < to.width) to.data[row * to.stride + c] = store<T>(sum[r][i]);
    }
  }
}

// term: of the scores.
template <class T, class Term>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_forward_rows(AttentionInputs<T> in, Term term, int64_t row_tiles, int64_t chunks,
                           T* out, Acc<T>* peak, Acc<T>* inverse) {
  typedef Acc<T> A;
  D2L_SHARED(tiles, AttentionTiles<A>);
  const AttentionBlock block(in.size, row_tiles, chunks);
  const Dropout dropout = attention_dropout(in);
  const int first_row = threadIdx.x / 32 * kRowsOfWarp, lane = threadIdx.x % 32;
  const int64_t reach = load_counts(in, block.b, block.first, &tiles);
  const auto query = rows_of_head(in.query, in.size, block, in.size.queries, in.size.dim);
  const auto key = rows_of_head(in.key, in.size, block, in.size.keys, in.size.dim);
  auto value = rows_of_head(in.value, in.size, block, in.size.keys, in.size.value_dim);
  value.rows = reach;  // what nobody looks at is not read
  A m[kRowsOfWarp], total[kRowsOfWarp], sum[kRowsOfWarp][kItems] = {};
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    m[r] = sizeof(A) == sizeof(float) ? A(-FLT_MAX) : A(-DBL_MAX);
    total[r] = A(0);
  }
  for (int64_t j = 0; j < reach; j += kLanesOfTile) {
    A weight[kRowsOfWarp];
    sum_tile(query, block.first, key, j, term, &tiles, weight);
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      const int64_t count = tiles.count[first_row + r];
      const bool looks = looks_at(in, count, j + lane);
      const A own = count == 0 ? A(0) : weight[r] * in.scale;
      const A score = looks ? own : A(-INFINITY);
      const A now = fmax(m[r], warp_reduce(score, Maximum()));
      const A p = looks ? exp(score - now) : A(0), shrink = exp(m[r] - now);
      m[r] = now;
      total[r] = total[r] * shrink + warp_reduce(p, Sum());
#pragma unroll
      for (int i = 0; i < kItems; ++i) sum[r][i] *= shrink;
      const int64_t row = block.first + first_row + r;
      weight[r] = p * dropout_factor<A>(dropout, dropout_row(in.size, block.b, block.head, row),
                                        static_cast<uint32_t>(j + lane));
    }
    add_weighted(value, j, block.column, weight, &tiles, sum);
  }
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    const A scale = reach > 0 ? A(1) / total[r] : A(0);
#pragma unroll
    for (int i = 0; i < kItems; ++i) sum[r][i] *= scale;
    const int64_t row = block.first + first_row + r;
    if (block.column == 0 && lane == 0 && row < in.size.queries) {
      const int64_t at = dropout_row(in.size, block.b, block.head, row);
      peak[at] = m[r];
      inverse[at] = scale;
    }
  }
  store_sums(sum, rows_of_head(out, in.size, block, in.size.queries, in.size.value_dim),
             block.first, block.column);
}

// What backward reads besides the inputs; delta[row] = <do, o>.
template <class T>
struct AttentionSaved {
  const T *grad_out, *out;
  const Acc<T>*peak, *inverse;
  Acc<T>* delta;
};

// A warp for each query of each head.
template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_delta(AttentionSizes size, AttentionSaved<T> saved) {
  const int64_t rows = size.batch * size.heads * size.queries;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kAttentionThreads / 32);
  const int lane = threadIdx.x % 32;
  for (int64_t r = (static_cast<int64_t>(blockIdx.x) * kAttentionThreads + threadIdx.x) / 32;
       r < rows; r += warps) {
    const int64_t head = r / size.queries, b = head / size.heads;
    const int64_t at =
        ((b * size.queries + r % size.queries) * size.heads + head % size.heads) * size.value_dim;
    Acc<T> sum = 0;
    for (int64_t c = lane; c < size.value_dim; c += 32) {
      sum += load(saved.grad_out[at + c]) * load(saved.out[at + c]);
    }
    sum = warp_reduce(sum, Sum());
    if (lane == 0) saved.delta[r] = sum;
  }
}

// The weight of one query and key as it weighs the value, and the gradient of their score.
// product: the score but for its scale, grad: <do, v>, row: of the query's statistics.
template <class T, class A>
__device__ inline void backward_weights(const AttentionInputs<T>& in,
                                        const AttentionSaved<T>& saved, const Dropout& dropout,
                                        int64_t row, int64_t key, int64_t count, A product, A grad,
                                        A* weight, A* grad_score) {
  *weight = *grad_score = A(0);
  if (!looks_at(in, count, key)) return;
  const A score = count == 0 ? A(0) : product * in.scale;
  const A p = exp(score - saved.peak[row]) * saved.inverse[row];
  const A factor = dropout_factor<A>(dropout, row, static_cast<uint32_t>(key));
  *weight = p * factor;
  if (count > 0) *grad_score = in.scale * attention_ds(p, grad * factor, saved.delta[row]);
}

// ---- Launching ----

inline int64_t tiles_of(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }

// One block for each head, tile of its rows and chunk of columns.
template <class... Params>
int launch_blocks(void (*kernel)(Params...), const AttentionSizes& size, int64_t tiles,
                  int64_t chunks, void* stream, typename Identity<Params>::type... args) {
  const int64_t blocks = size.batch * size.heads * tiles * chunks;
  if (blocks == 0) return 0;
  return launch(kernel, static_cast<unsigned>(blocks), kAttentionThreads, stream, args...);
}

// out: of the operator, with peak and inverse.
template <class T, class Term>
int launch_attention_forward(const AttentionInputs<T>& in, const Term& term, const Tensor* out,
                             void* stream) {
  const int64_t tiles = tiles_of(in.size.queries, kRows);
  const int64_t chunks = in.size.value_dim > 0 ? tiles_of(in.size.value_dim, kColumns) : 1;
  return launch_blocks(attention_forward_rows<T, Term>, in.size, tiles, chunks, stream, in, term,
                       tiles, chunks, data<T>(out[0]), data<Acc<T>>(out[1]), data<Acc<T>>(out[2]));
}

inline int64_t delta_size(const AttentionSizes& size) {
  return size.batch * size.heads * size.queries;
}

// Fills saved.delta, delta_size() values.
template <class T>
int launch_attention_delta(const AttentionSizes& size, const AttentionSaved<T>& saved,
                           void* stream) {
  const int64_t rows = delta_size(size);
  if (rows == 0) return 0;
  return launch_rows(attention_delta<T>, kAttentionThreads, kAttentionThreads / 32, rows, stream,
                     size, saved);
}

// The inputs from `first` on, which have no gradient, get zeros.
inline int zero_gradients(const Tensor* grad, int first, int end, void* stream) {
  for (int i = first; i < end; ++i) {
    if (!given(grad[i])) continue;
    if (int status = zero(grad[i], stream)) return status;
  }
  return 0;
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_ATTENTION_CUDA_H_
