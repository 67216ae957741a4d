// What attention with any kind of scores shares: its inputs, how the work is cut into blocks of
// queries and of keys, the running sums of forward, and what backward makes ready.
#ifndef D2L_COMMON_ATTENTION_BLOCKS_H_
#define D2L_COMMON_ATTENTION_BLOCKS_H_

#include "dropout.h"
#include "lengths.h"
#include "nonzero_rows.h"

namespace d2l {
inline namespace D2L_ISA {

struct AttentionSizes {
  int64_t batch, heads, queries, keys, dim, value_dim;
};

// What forward and backward share.
template <class T>
struct AttentionInputs {
  AttentionSizes size;
  const T *query, *key, *value;
  Lengths lengths;
  const float* seed;  // null: no dropout
  bool causal;
  double dropout_rate;
  Acc<T> scale;
};

// The keys that a query looks at; 0 if it has none of its own and so looks at all of them.
template <class T>
D2L_HOST_DEVICE inline int64_t attention_count(const AttentionInputs<T>& in, int64_t b,
                                               int64_t query) {
  const int64_t n = valid_length(in.lengths, b * in.size.queries + query, in.size.keys);
  if (!in.causal) return n;
  // More keys than queries are those of earlier steps, which stand in front.
  const int64_t earlier = in.size.keys > in.size.queries ? in.size.keys - in.size.queries : 0;
  return n > earlier + query + 1 ? earlier + query + 1 : n;
}

template <class T>
D2L_HOST_DEVICE inline Dropout attention_dropout(const AttentionInputs<T>& in) {
  if (!in.seed) return {false, {{0, 0}}, 0, 1};
  return dropout_of(in.seed, in.dropout_rate);
}

// The random numbers of a query's weights stand in this row, one column a key.
D2L_HOST_DEVICE inline uint64_t dropout_row(const AttentionSizes& size, int64_t b, int64_t head,
                                            int64_t query) {
  return (b * size.heads + head) * size.queries + query;
}

// The formula of one score's gradient, for every target.
template <class A>
D2L_HOST_DEVICE inline A attention_ds(A p, A dp, A d) {
  return p * (dp - d);
}

// The rule of the input valid_len.
inline void expect_lengths_shape(Shape* lengths, const Shape& query, const char* op, Error* error) {
  if (lengths->ndim != 1 && lengths->ndim != 2) {
    fail(error, "%s: valid_len must have shape (batch,) or (batch, queries), got %s", op,
         ShapeText(*lengths).text);
    return;
  }
  expect_shape(lengths, {lengths->ndim, {query.dim[0], query.dim[1]}}, op, "valid_len", error);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <float.h>

#include "running_softmax.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = 256;
constexpr int64_t kRange = 1024;  // queries of one task, at most
constexpr int64_t kTasks = 16;    // at least, if there are enough blocks
// How the work is cut; from sizes alone.
template <class A>
struct AttentionPlan {
  AttentionSizes size;
  int64_t query_block, key_block;  // the rows of one block
  int64_t dim, value_dim;          // padded to vectors
  int64_t score_ld;                // between rows of scores: no power of two, for the cache's sake
  int64_t heads;                   // of all examples

  explicit AttentionPlan(const AttentionSizes& sizes)
      : size(sizes),
        query_block(at_most(kQueryBlock, sizes.queries)),
        key_block(at_most(kKeyBlock, padded_to_vector<A>(sizes.keys))),
        dim(padded_to_vector<A>(sizes.dim)),
        value_dim(padded_to_vector<A>(sizes.value_dim)),
        score_ld(key_block + kVectorLanes<A>),
        heads(sizes.batch * sizes.heads) {}

  // The pieces into which the work on one head is cut, for many threads to have some of it.
  int64_t pieces(int64_t blocks) const {
    return at_least(1, at_most(blocks, blocks_of(kTasks, at_least(1, heads))));
  }

  // Forward: the queries of one task.  The more they are, the less packing the keys counts.
  int64_t range() const {
    const int64_t blocks = blocks_of(size.queries, kQueryBlock);
    return at_most(kRange, blocks_of(blocks, pieces(blocks)) * kQueryBlock);
  }
  int64_t ranges() const { return blocks_of(size.queries, at_least(1, range())); }

  // Backward: the parts into which the keys of a head are cut.  With several, each sums up a dq of
  // its own.
  int64_t key_blocks() const { return blocks_of(size.keys, at_least(1, key_block)); }
  int64_t parts() const { return pieces(key_blocks()); }
  int64_t partial() const { return line_bytes<A>(size.queries * dim) / sizeof(A); }
};

// What one thread of forward works on: a range of queries and one block of keys.
template <class A>
struct AttentionForwardBuffers {
  A *query, *out, *peak, *total, *correction, *scores, *key, *value;
  int64_t* count;

  AttentionForwardBuffers(const AttentionPlan<A>& plan, Arena* arena) {
    const int64_t range = padded_to_vector<A>(plan.range());
    query = arena->take<A>(range * plan.dim);
    out = arena->take<A>(range * plan.value_dim);
    peak = arena->take<A>(range);
    total = arena->take<A>(range);
    correction = arena->take<A>(kQueryBlock);
    scores = arena->take<A>(plan.query_block * plan.score_ld);
    key = arena->take<A>(packed_size<A>(plan.key_block, plan.dim));
    value = arena->take<A>(plan.key_block * plan.value_dim);
    count = arena->take<int64_t>(range);
  }
};

// What one thread of backward works on: all queries of a head and one block of its keys.
template <class A>
struct AttentionBackwardBuffers {
  A *query, *grad_out, *scores, *grad_scores, *packed_key, *packed_value, *key, *grad_key,
      *grad_value, *delta, *factor, *grad_query;
  int64_t *count, *place;

  AttentionBackwardBuffers(const AttentionPlan<A>& plan, Arena* arena) {
    const AttentionSizes& size = plan.size;
    query = arena->take<A>(size.queries * plan.dim);
    grad_out = arena->take<A>(size.queries * plan.value_dim);
    scores = arena->take<A>(plan.query_block * plan.score_ld);
    grad_scores = arena->take<A>(plan.query_block * plan.score_ld);
    packed_key = arena->take<A>(packed_size<A>(plan.key_block, size.dim));
    packed_value = arena->take<A>(packed_size<A>(plan.key_block, size.value_dim));
    key = arena->take<A>(plan.key_block * plan.dim);
    grad_key = arena->take<A>(plan.key_block * plan.dim);
    grad_value = arena->take<A>(plan.key_block * plan.value_dim);
    delta = arena->take<A>(size.queries);
    factor = arena->take<A>(size.queries);
    grad_query = arena->take<A>(plan.parts() > 1 ? 0 : size.queries * plan.dim);
    count = arena->take<int64_t>(size.queries);
    place = arena->take<int64_t>(size.queries);
  }
};

template <class A>
inline void fill_zero(A* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = 0;
}

// The counts of queries first .. first + n - 1 of example b; returns the largest.  A query without
// keys of its own looks at all of them, with scores 0: empty(i) is called for it.
template <class T, class Empty>
inline int64_t attention_counts(const AttentionInputs<T>& in, int64_t b, int64_t first, int64_t n,
                                int64_t* count, const Empty& empty) {
  int64_t most = 0;
  for (int64_t i = 0; i < n; ++i) {
    count[i] = attention_count(in, b, first + i);
    if (count[i] == 0) {
      count[i] = in.size.keys;
      empty(i);
    }
    most = at_least(most, count[i]);
  }
  return most;
}

// The largest count of some rows, less the keys before this block, at most its keys.
inline int64_t keys_in_reach(const int64_t* count, int64_t rows, int64_t first_key, int64_t keys) {
  int64_t most = 0;
  for (int64_t i = 0; i < rows; ++i) most = at_least(most, count[i] - first_key);
  return at_most(most, keys);
}

// Before the first block of keys.
template <class A>
inline void attention_start_range(const AttentionForwardBuffers<A>& buf, int64_t n) {
  const int64_t vectors = padded_to_vector<A>(n);
  for (int64_t i = 0; i < vectors; ++i) {
    // Not -infinity: the difference of two of them is no number.
    buf.peak[i] = sizeof(A) == sizeof(float) ? A(-FLT_MAX) : A(-DBL_MAX);
    buf.total[i] = 0;
  }
}

// Takes a block of scores, of queries i0 .. i0 + rows - 1 and top keys from j0 on, into the sums.
template <class A>
inline void attention_weigh_block(const AttentionPlan<A>& plan,
                                  const AttentionForwardBuffers<A>& buf, const Dropout& dropout,
                                  uint64_t drop_row, int64_t i0, int64_t rows, int64_t j0,
                                  int64_t top) {
  const int64_t cols = padded_to_vector<A>(top);
  running_softmax(buf.scores, plan.score_ld, rows, cols, buf.count + i0, j0, buf.peak + i0,
                  buf.total + i0, buf.correction);
  drop_weights(dropout, drop_row, rows, j0, cols, buf.scores, plan.score_ld);
  A* o = buf.out + i0 * plan.value_dim;
  for (int64_t i = 0; i < rows && j0 > 0; ++i) {
    const A shrink = buf.correction[i];
    if (shrink == A(1)) continue;
    for (int64_t c = 0; c < plan.value_dim; ++c) o[i * plan.value_dim + c] *= shrink;
  }
  gemm<false>(rows, plan.value_dim, top, A(1), buf.scores, plan.score_ld,
              panels_of_rows(buf.value, plan.value_dim), o, plan.value_dim, j0 > 0);
}

// The sums of queries first .. first + n - 1 of one head become results; keys: whether there are
// any.
template <class T>
inline void attention_store_range(const AttentionInputs<T>& in, const AttentionPlan<Acc<T>>& plan,
                                  const AttentionForwardBuffers<Acc<T>>& buf, int64_t b,
                                  int64_t head, int64_t first, int64_t n, bool keys, T* out,
                                  Acc<T>* peak, Acc<T>* inverse) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const int64_t value_width = size.heads * size.value_dim;
  const int64_t stats = (b * size.heads + head) * size.queries + first;
  const bool streamed = worth_streaming<T>(size.batch * size.queries * value_width);
  for (int64_t i = 0; i < n; ++i) {
    const A scale = keys ? A(1) / buf.total[i] : A(0);
    T* to = out + (b * size.queries + first + i) * value_width + head * size.value_dim;
    const A* from = buf.out + i * plan.value_dim;
    store_row(size.value_dim, to, streamed, [=](int64_t c) { return from[c] * scale; });
    peak[stats + i] = buf.peak[i];
    inverse[stats + i] = scale;
  }
}

template <class T>
struct AttentionGradients {
  const T *grad_out, *out;
  const Acc<T>*peak, *inverse;
  T *grad_query, *grad_key, *grad_value;
};

// One row of a block: scores become weights, grad_weights (of weights) gradients of scores.
template <class A>
inline void attention_backward_row(int64_t cols, int64_t count, A peak, A inverse, A delta,
                                   A factor, A* scores, A* grad_weights) {
  for (int64_t j = at_least(0, count); j < cols; ++j) {
    scores[j] = -INFINITY;
    grad_weights[j] = 0;
  }
#pragma omp simd
  for (int64_t j = 0; j < cols; ++j) {
    const A p = fast_exp(scores[j] - peak) * inverse;
    scores[j] = p;
    grad_weights[j] = factor * attention_ds(p, grad_weights[j], delta);
  }
}

// All queries of one head: copies of q and do, counts, D, and the factor of their ds.
template <class T>
inline void attention_backward_queries(const AttentionInputs<T>& in,
                                       const AttentionGradients<T>& grads,
                                       const AttentionPlan<Acc<T>>& plan,
                                       const AttentionBackwardBuffers<Acc<T>>& buf, int64_t b,
                                       int64_t head) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const int64_t width = size.heads * size.dim, value_width = size.heads * size.value_dim;
  const int64_t out_at = b * size.queries * value_width + head * size.value_dim;
  copy_rows(in.query + b * size.queries * width + head * size.dim, width, size.queries, size.dim,
            buf.query, plan.dim);
  copy_rows(grads.grad_out + out_at, value_width, size.queries, size.value_dim, buf.grad_out,
            plan.value_dim);
  for (int64_t i = 0; i < size.queries; ++i) {
    const A* g = buf.grad_out + i * plan.value_dim;
    const T* o = grads.out + out_at + i * value_width;
    buf.delta[i] = sum<A>(size.value_dim, [=](int64_t c) { return g[c] * load(o[c]); });
    buf.factor[i] = in.scale;
  }
  attention_counts(in, b, 0, size.queries, buf.count, [&](int64_t i) {
    buf.factor[i] = 0;
    fill_zero(buf.query + i * plan.dim, plan.dim);
  });
}

// Adds up the dq of the parts of each head, (queries, plan.dim) each; store(dq, head, query).
template <class A, class Store>
inline void attention_sum_parts(const AttentionPlan<A>& plan, A* partials, const Store& store) {
  const int64_t parts = plan.parts(), queries = plan.size.queries;
  parallel_for(plan.heads * queries, parts * plan.dim, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t head = r / queries, i = r % queries;
      A* first = partials + head * parts * plan.partial() + i * plan.dim;
      for (int64_t part = 1; part < parts; ++part) {
#pragma omp simd
        for (int64_t c = 0; c < plan.dim; ++c) first[c] += first[part * plan.partial() + c];
      }
      store(first, head, i);
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_COMMON_ATTENTION_BLOCKS_H_
