// The CUDA twin of additive_attention.h: same formulas, layout, masks and random numbers, but for
// tanh, which it computes for each pair.  What is shared stands in common/attention_cuda.h.
//
// Blocks of queries write dq, and each of them what it has of dv, without v (partial); blocks of
// keys write dk and dvalue.
#include "additive_attention.h"
#include "common/attention_cuda.h"
#include "common/vec_math.h"

namespace d2l {
inline namespace D2L_ISA {

// The term of a score.
template <class T>
struct AdditiveTerm {
  const T* v;
  int64_t hidden;

  template <class A>
  __device__ A operator()(A q, A k, int64_t c) const {
    return c < hidden ? load(v[c]) * fast_tanh(q + k) : A(0);
  }
};

// The entries of the block's rows in the columns of a thread, 0 where there are none.
template <class T, class A>
__device__ inline void load_own(const HeadRows<T>& rows, int64_t first, int64_t column,
                                A (&own)[kRowsOfWarp][kItems]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    const int64_t row = first + warp * kRowsOfWarp + r;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int64_t c = column + lane + 32 * i;
      own[r][i] = row < rows.rows && c < rows.width ? load(rows.data[row * rows.stride + c]) : A(0);
    }
  }
}

// Adds, over the lanes, ds (1 - t^2) to sum[r][i] and ds t to features[i], where t = tanh(own[r][i]
// + from[first + lane][column ...]) and ds is grad_score[r] of that lane.  All threads must call.
template <class T, class A>
__device__ inline void add_slopes(const HeadRows<T>& from, int64_t first, int64_t column,
                                  const A (&own)[kRowsOfWarp][kItems],
                                  const A (&grad_score)[kRowsOfWarp], AttentionTiles<A>* tiles,
                                  A (&sum)[kRowsOfWarp][kItems], A (&features)[kItems]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();
  load_tile<T, A, kLanesOfTile, kColumns>(from, first, column, tiles->columns);
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    tiles->weights[warp * kRowsOfWarp + r][lane] = grad_score[r];
  }
  __syncthreads();
  for (int j = 0; j < kLanesOfTile; ++j) {
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      const A ds = tiles->weights[warp * kRowsOfWarp + r][j];
      if (ds == A(0)) continue;  // it may be of a key, or a query, that does not count
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const A t = fast_tanh(own[r][i] + tiles->columns[j][lane + 32 * i]), x = ds * t;
        features[i] += x;
        sum[r][i] += ds - x * t;
      }
    }
  }
}

// sum[r][i] *= v of its column.
template <class T, class A>
__device__ inline void times_v(const AdditiveTerm<T>& term, int64_t column,
                               A (&sum)[kRowsOfWarp][kItems]) {
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int64_t c = column + threadIdx.x % 32 + 32 * i;
    const A v = c < term.hidden ? load(term.v[c]) : A(0);
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) sum[r][i] *= v;
  }
}

// to[column + lane + 32 i] = the sum of features[i] over the warps.  All threads must call.
template <class A>
__device__ inline void store_features(const A (&features)[kItems], int64_t hidden, int64_t column,
                                      AttentionTiles<A>* tiles, A* to) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    tiles->columns[threadIdx.x / 32][threadIdx.x % 32 + 32 * i] = features[i];
  }
  __syncthreads();
  if (threadIdx.x >= kColumns || column + threadIdx.x >= hidden) return;
  A sum = tiles->columns[0][threadIdx.x];
  for (int w = 1; w < kAttentionThreads / 32; ++w) sum += tiles->columns[w][threadIdx.x];
  to[column + threadIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    additive_grad_query(AttentionInputs<T> in, AdditiveTerm<T> term, AttentionSaved<T> saved,
                        int64_t row_tiles, int64_t chunks, T* grad_query, Acc<T>* partial) {
  typedef Acc<T> A;
  D2L_SHARED(tiles, AttentionTiles<A>);
  const AttentionBlock block(in.size, row_tiles, chunks);
  const Dropout dropout = attention_dropout(in);
  const int first_row = threadIdx.x / 32 * kRowsOfWarp, lane = threadIdx.x % 32;
  const int64_t reach = load_counts(in, block.b, block.first, &tiles);
  const auto query = rows_of_head(in.query, in.size, block, in.size.queries, in.size.dim);
  const auto grad =
      rows_of_head(saved.grad_out, in.size, block, in.size.queries, in.size.value_dim);
  const auto key = rows_of_head(in.key, in.size, block, in.size.keys, in.size.dim);
  const auto value = rows_of_head(in.value, in.size, block, in.size.keys, in.size.value_dim);
  A own[kRowsOfWarp][kItems], sum[kRowsOfWarp][kItems] = {}, features[kItems] = {};
  load_own(query, block.first, block.column, own);
  for (int64_t j = 0; j < reach; j += kLanesOfTile) {
    A score[kRowsOfWarp], grad_weight[kRowsOfWarp], weight, grad_score[kRowsOfWarp];
    sum_tile(query, block.first, key, j, term, &tiles, score);
    sum_tile(grad, block.first, value, j, ProductTerm(), &tiles, grad_weight);
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      backward_weights(
          in, saved, dropout, dropout_row(in.size, block.b, 0, block.first + first_row + r),
          j + lane, tiles.count[first_row + r], score[r], grad_weight[r], &weight, &grad_score[r]);
    }
    add_slopes(key, j, block.column, own, grad_score, &tiles, sum, features);
  }
  times_v(term, block.column, sum);
  store_sums(sum, rows_of_head(grad_query, in.size, block, in.size.queries, in.size.dim),
             block.first, block.column);
  store_features(features, in.size.dim, block.column, &tiles,
                 partial + (block.b * row_tiles + block.first / kRows) * in.size.dim);
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    additive_grad_key_value(AttentionInputs<T> in, AdditiveTerm<T> term, AttentionSaved<T> saved,
                            int64_t row_tiles, int64_t chunks, T* grad_key, T* grad_value) {
  typedef Acc<T> A;
  D2L_SHARED(tiles, AttentionTiles<A>);
  const AttentionBlock block(in.size, row_tiles, chunks);
  const Dropout dropout = attention_dropout(in);
  const int first_row = threadIdx.x / 32 * kRowsOfWarp, lane = threadIdx.x % 32;
  const auto query = rows_of_head(in.query, in.size, block, in.size.queries, in.size.dim);
  const auto grad =
      rows_of_head(saved.grad_out, in.size, block, in.size.queries, in.size.value_dim);
  const auto key = rows_of_head(in.key, in.size, block, in.size.keys, in.size.dim);
  const auto value = rows_of_head(in.value, in.size, block, in.size.keys, in.size.value_dim);
  A own[kRowsOfWarp][kItems], sum_key[kRowsOfWarp][kItems] = {}, features[kItems] = {};
  A sum_value[kRowsOfWarp][kItems] = {};
  load_own(key, block.first, block.column, own);
  for (int64_t i = 0; i < in.size.queries; i += kLanesOfTile) {
    if (load_counts(in, block.b, i, &tiles) <= block.first) continue;
    A score[kRowsOfWarp], grad_weight[kRowsOfWarp], weight[kRowsOfWarp], grad_score[kRowsOfWarp];
    sum_tile(key, block.first, query, i, term, &tiles, score);
    sum_tile(value, block.first, grad, i, ProductTerm(), &tiles, grad_weight);
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      backward_weights(in, saved, dropout, dropout_row(in.size, block.b, 0, i + lane),
                       block.first + first_row + r, tiles.count[lane], score[r], grad_weight[r],
                       &weight[r], &grad_score[r]);
    }
    add_slopes(query, i, block.column, own, grad_score, &tiles, sum_key, features);
    add_weighted(grad, i, block.column, weight, &tiles, sum_value);
  }
  times_v(term, block.column, sum_key);
  store_sums(sum_key, rows_of_head(grad_key, in.size, block, in.size.keys, in.size.dim),
             block.first, block.column);
  store_sums(sum_value, rows_of_head(grad_value, in.size, block, in.size.keys, in.size.value_dim),
             block.first, block.column);
}

// A warp for each column: the sum of what the blocks of queries have.
template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    additive_grad_v(const Acc<T>* partial, int64_t parts, int64_t hidden, T* grad_v) {
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kAttentionThreads / 32);
  const int lane = threadIdx.x % 32;
  for (int64_t c = (static_cast<int64_t>(blockIdx.x) * kAttentionThreads + threadIdx.x) / 32;
       c < hidden; c += warps) {
    Acc<T> sum = 0;
    for (int64_t part = lane; part < parts; part += 32) sum += partial[part * hidden + c];
    sum = warp_reduce(sum, Sum());
    if (lane == 0) grad_v[c] = store<T>(sum);
  }
}

struct AdditiveAttentionCuda {
  typedef AdditiveAttentionParams Params;
  static constexpr const char* kName = "additive_attention";

  // The parts of dv.
  static int64_t parts(const AttentionSizes& size) {
    return size.batch * tiles_of(size.queries, kRows);
  }

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    const AttentionSizes size = additive_sizes(in);
    const int64_t item = in[0].dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
    return backward ? (delta_size(size) + parts(size) * size.dim) * item : 0;
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const AdditiveInputs<T> in = additive_inputs<T>(params, call.inputs);
    const AdditiveTerm<T> term = {in.v, in.size.dim};
    return launch_attention_forward<T>(in, term, call.outputs, resources.stream);
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    typedef Acc<T> A;
    const AdditiveInputs<T> in = additive_inputs<T>(params, call.inputs);
    const AdditiveTerm<T> term = {in.v, in.size.dim};
    const AttentionSizes& size = in.size;
    const Tensor *out = call.outputs, *grad = call.grad_inputs;
    void* stream = resources.stream;
    if (int status = zero_gradients(grad, 4, 6, stream)) return status;
    A *delta = static_cast<A*>(resources.workspace), *partial = delta + delta_size(size);
    const AttentionSaved<T> saved = {data<T>(call.grad_outputs[0]), data<T>(out[0]),
                                     data<A>(out[1]), data<A>(out[2]), delta};
    if (int status = launch_attention_delta(size, saved, stream)) return status;
    const int64_t tiles = tiles_of(size.queries, kRows), chunks = tiles_of(size.dim, kColumns);
    if (int status = launch_blocks(additive_grad_query<T>, size, tiles, chunks, stream, in, term,
                                   saved, tiles, chunks, data<T>(grad[0]), partial)) {
      return status;
    }
    const int64_t widest = size.dim > size.value_dim ? size.dim : size.value_dim;
    const int64_t key_tiles = tiles_of(size.keys, kRows), key_chunks = tiles_of(widest, kColumns);
    if (int status =
            launch_blocks(additive_grad_key_value<T>, size, key_tiles, key_chunks, stream, in, term,
                          saved, key_tiles, key_chunks, data<T>(grad[1]), data<T>(grad[2]))) {
      return status;
    }
    if (size.dim == 0) return 0;
    return launch_rows(additive_grad_v<T>, kAttentionThreads, kAttentionThreads / 32, size.dim,
                       stream, partial, parts(size), size.dim, data<T>(grad[3]));
  }
};

D2L_REGISTER_CUDA_OP(AdditiveAttentionCuda);

}  // namespace D2L_ISA
}  // namespace d2l
