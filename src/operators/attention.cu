// The CUDA twin of attention.h: same formulas, layout, masks and random numbers.
#include "attention.h"
#include "common/attention_cuda.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_grad_query(AttentionInputs<T> in, AttentionSaved<T> saved, int64_t row_tiles,
                         int64_t chunks, T* grad_query) {
  typedef Acc<T> A;
  D2L_SHARED(tiles, AttentionTiles<A>);
  const AttentionBlock block(in.size, row_tiles, chunks);
  const Dropout dropout = attention_dropout(in);
  const int first_row = threadIdx.x / 32 * kRowsOfWarp, lane = threadIdx.x % 32;
  const int64_t reach = load_counts(in, block.b, block.first, &tiles);
  const auto query = rows_of_head(in.query, in.size, block, in.size.queries, in.size.dim);
  const auto grad =
      rows_of_head(saved.grad_out, in.size, block, in.size.queries, in.size.value_dim);
  auto key = rows_of_head(in.key, in.size, block, in.size.keys, in.size.dim);
  auto value = rows_of_head(in.value, in.size, block, in.size.keys, in.size.value_dim);
  key.rows = value.rows = reach;
  A sum[kRowsOfWarp][kItems] = {};
  for (int64_t j = 0; j < reach; j += kLanesOfTile) {
    A product[kRowsOfWarp], grad_weight[kRowsOfWarp], weight, grad_score[kRowsOfWarp];
    sum_tile(query, block.first, key, j, ProductTerm(), &tiles, product);
    sum_tile(grad, block.first, value, j, ProductTerm(), &tiles, grad_weight);
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      backward_weights(in, saved, dropout,
                       dropout_row(in.size, block.b, block.head, block.first + first_row + r),
                       j + lane, tiles.count[first_row + r], product[r], grad_weight[r], &weight,
                       &grad_score[r]);
    }
    add_weighted(key, j, block.column, grad_score, &tiles, sum);
  }
  store_sums(sum, rows_of_head(grad_query, in.size, block, in.size.queries, in.size.dim),
             block.first, block.column);
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_grad_key_value(AttentionInputs<T> in, AttentionSaved<T> saved, int64_t row_tiles,
                             int64_t chunks, T* grad_key, T* grad_value) {
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
  A sum_key[kRowsOfWarp][kItems] = {}, sum_value[kRowsOfWarp][kItems] = {};
  for (int64_t i = 0; i < in.size.queries; i += kLanesOfTile) {
    if (load_counts(in, block.b, i, &tiles) <= block.first) continue;
    A product[kRowsOfWarp], grad_weight[kRowsOfWarp], weight[kRowsOfWarp], grad_score[kRowsOfWarp];
    sum_tile(key, block.first, query, i, ProductTerm(), &tiles, product);
    sum_tile(value, block.first, grad, i, ProductTerm(), &tiles, grad_weight);
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      backward_weights(in, saved, dropout, dropout_row(in.size, block.b, block.head, i + lane),
                       block.first + first_row + r, tiles.count[lane], product[r], grad_weight[r],
                       &weight[r], &grad_score[r]);
    }
    add_weighted(query, i, block.column, grad_score, &tiles, sum_key);
    add_weighted(grad, i, block.column, weight, &tiles, sum_value);
  }
  store_sums(sum_key, rows_of_head(grad_key, in.size, block, in.size.keys, in.size.dim),
             block.first, block.column);
  store_sums(sum_value, rows_of_head(grad_value, in.size, block, in.size.keys, in.size.value_dim),
             block.first, block.column);
}

struct AttentionCuda {
  typedef AttentionParams Params;
  static constexpr const char* kName = "attention";

  static int64_t workspace(const Params& params, const Tensor* in, bool backward) {
    const int64_t item = in[0].dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
    return backward ? delta_size(attention_sizes(params, in)) * item : 0;
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    return launch_attention_forward(attention_inputs<T>(params, call.inputs), ProductTerm(),
                                    call.outputs, resources.stream);
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const AttentionInputs<T> in = attention_inputs<T>(params, call.inputs);
    const AttentionSizes& size = in.size;
    const Tensor *out = call.outputs, *grad = call.grad_inputs;
    void* stream = resources.stream;
    if (int status = zero_gradients(grad, 3, 5, stream)) return status;
    const AttentionSaved<T> saved = {data<T>(call.grad_outputs[0]), data<T>(out[0]),
                                     data<Acc<T>>(out[1]), data<Acc<T>>(out[2]),
                                     static_cast<Acc<T>*>(resources.workspace)};
    if (int status = launch_attention_delta(size, saved, stream)) return status;
    const int64_t tiles = tiles_of(size.queries, kRows), chunks = tiles_of(size.dim, kColumns);
    if (int status = launch_blocks(attention_grad_query<T>, size, tiles, chunks, stream, in, saved,
                                   tiles, chunks, data<T>(grad[0]))) {
      return status;
    }
    const int64_t widest = size.dim > size.value_dim ? size.dim : size.value_dim;
    const int64_t key_tiles = tiles_of(size.keys, kRows), key_chunks = tiles_of(widest, kColumns);
    return launch_blocks(attention_grad_key_value<T>, size, key_tiles, key_chunks, stream, in,
                         saved, key_tiles, key_chunks, data<T>(grad[1]), data<T>(grad[2]));
  }
};

D2L_REGISTER_CUDA_OP(AttentionCuda);

}  // namespace D2L_ISA
}  // namespace d2l
