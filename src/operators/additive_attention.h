// Additive attention (Bahdanau et al., Neural machine translation by jointly learning to align and
// translate, 2015, section 3.1 and appendix A.1.2) of queries and keys that are already projected.
//
//   s_ij = sum_c v_c t_ijc,  t_ijc = tanh(q_ic + k_jc),  p_ij = exp(s_ij - m_i) / l_i for j < n_i,
//   else 0,  o_i = sum_j r_ij p_ij value_j
//
// m, l, n and the factors r of dropout are those of attention.h, and so are the blocks of queries
// and keys: neither t nor s is ever stored.  Where n_i = 0, p_ij = 1 / keys for all keys.
//
// Layout: q (batch, queries, hidden), k (batch, keys, hidden), v (hidden), value (batch, keys,
// value_dim), o (batch, queries, value_dim).  Saved for backward: m and 1 / l, (batch, queries).
// Gradient, with D_i = <do_i, o_i>, t and p computed again:
//
//   ds_ij = p_ij (r_ij <do_i, value_j> - D_i), 0 where n_i = 0,  dvalue_j = sum_i r_ij p_ij do_i,
//   u_ijc = ds_ij (1 - t_ijc^2),  dq_ic = v_c sum_j u_ijc,  dk_jc = v_c sum_i u_ijc,
//   dv_c = sum_ij ds_ij t_ijc
//
// tanh(q + k) = 1 - 2 / (e^2q e^2k + 1) takes one exp for each entry of q and of k, not for each of
// their pairs, and one division serves kShared pairs.  The error of t is absolute, at most about
// 4 units in the last place of 1, and so that of s is measured against sum_c |v_c|.  A factor may
// be infinite or 0 where the product should not be, but only if |q| and |k| are both large: queries
// with an entry beyond wide() go another way, by fast_tanh.
#ifndef D2L_ADDITIVE_ATTENTION_H_
#define D2L_ADDITIVE_ATTENTION_H_

#include "common/attention_blocks.h"

namespace d2l {
inline namespace D2L_ISA {

struct AdditiveAttentionParams {
  double dropout = 0;
};

// v besides what other attention has: one head, dim being the hidden units.
template <class T>
struct AdditiveInputs : AttentionInputs<T> {
  const T* v;
};

inline AttentionSizes additive_sizes(const Tensor* in) {
  const Shape &query = in[0].shape, &value = in[2].shape;
  return {query.dim[0], 1, query.dim[1], value.dim[1], query.dim[2], value.dim[2]};
}

// in: query, key, value, v, valid_len, seed.
template <class T>
inline AdditiveInputs<T> additive_inputs(const AdditiveAttentionParams& params, const Tensor* in) {
  AdditiveInputs<T> inputs;
  inputs.size = additive_sizes(in);
  inputs.query = data<T>(in[0]);
  inputs.key = data<T>(in[1]);
  inputs.value = data<T>(in[2]);
  inputs.v = data<T>(in[3]);
  inputs.lengths =
      lengths_of(in[4], {3, {inputs.size.batch, inputs.size.queries, inputs.size.keys}});
  inputs.seed = given(in[5]) ? data<float>(in[5]) : nullptr;
  inputs.causal = false;
  inputs.dropout_rate = params.dropout;
  inputs.scale = 1;
  return inputs;
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

constexpr int kShared = 4;  // keys of one division

// If |q| is at most this, e^2k overflows (or is 0) only where tanh(q + k) rounds to 1 (or -1).
template <class A>
constexpr A wide() {
  return sizeof(A) == sizeof(float) ? A(34) : A(330);
}

// e^2x + 1 above this is as good as this: tanh is 1.  Products of kShared such do not overflow.
template <class A>
constexpr A huge() {
  return sizeof(A) == sizeof(float) ? A(1 << 30) : A(int64_t{1} << 60);
}

// How a query's features are computed: by factors, by fast_tanh, or, if it has no keys of its own
// and all score the same, not at all.
enum class Way : int64_t { kFactors, kTanh, kNone };

template <class A>
struct AdditiveForwardBuffers : AttentionForwardBuffers<A> {
  A *v, *features;
  Way* way;

  AdditiveForwardBuffers(const AttentionPlan<A>& plan, Arena* arena)
      : AttentionForwardBuffers<A>(plan, arena) {
    v = arena->take<A>(plan.dim);
    features = arena->take<A>(kVectorLanes<A> * plan.dim);
    way = arena->take<Way>(plan.range());
  }
};

// grad_v sums up a task, block_v a block.
template <class A>
struct AdditiveBackwardBuffers : AttentionBackwardBuffers<A> {
  A *v, *features, *block_v;
  Way* way;

  AdditiveBackwardBuffers(const AttentionPlan<A>& plan, Arena* arena)
      : AttentionBackwardBuffers<A>(plan, arena) {
    v = arena->take<A>(plan.dim);
    features = arena->take<A>(kVectorLanes<A> * plan.dim);
    block_v = arena->take<A>(plan.dim);
    way = arena->take<Way>(plan.size.queries);
  }
};

template <class A>
inline int64_t additive_workspace(const AttentionSizes& size, bool backward) {
  const AttentionPlan<A> plan(size);
  if (!backward) {
    return lanes_of<AdditiveForwardBuffers<A>>(plan, plan.heads * plan.ranges()) *
           bytes_of<AdditiveForwardBuffers<A>>(plan);
  }
  const int64_t tasks = plan.heads * plan.parts();
  return lanes_of<AdditiveBackwardBuffers<A>>(plan, tasks) *
             bytes_of<AdditiveBackwardBuffers<A>>(plan) +
         tasks * line_bytes<A>(plan.dim) +
         (plan.parts() > 1 ? tasks * plan.partial() * static_cast<int64_t>(sizeof(A)) : 0);
}

// x becomes e^2x.
template <class A>
inline void exp_twice(A* x, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) x[i] = fast_exp(2 * x[i]);
}

template <class A>
inline typename Vector<A>::type& vector_at(A* p) {
  return *reinterpret_cast<typename Vector<A>::type*>(p);
}
template <class A>
inline const typename Vector<A>::type& vector_at(const A* p) {
  return *reinterpret_cast<const typename Vector<A>::type*>(p);
}

// The queries in buf.query, which are those from first on, become factors; sets their ways.
template <class T, class Buffers>
inline void additive_queries(const AdditiveInputs<T>& in, const AttentionPlan<Acc<T>>& plan,
                             const Buffers& buf, int64_t b, int64_t first, int64_t n) {
  typedef Acc<T> A;
  for (int64_t i = 0; i < n; ++i) {
    A* query = buf.query + i * plan.dim;
    const A largest = maximum<A>(in.size.dim, A(0), [=](int64_t c) { return fabs(query[c]); });
    buf.way[i] = largest > wide<A>() ? Way::kTanh : Way::kFactors;
    if (attention_count(in, b, first + i) == 0) buf.way[i] = Way::kNone;
    exp_twice(query, plan.dim);
  }
}

// Their reciprocals, by one division: 1 / a = b / (a b).
template <int n, class V>
inline void invert(V* x) {
  if constexpr (n == 1) {
    x[0] = 1 / x[0];
  } else {
    V half[2] = {x[0] * x[1], n == 2 ? V{} + 1 : x[n - 2] * x[n - 1]};
    if constexpr (n == 2) {
      half[0] = 1 / half[0];
    } else {
      invert<2>(half);
    }
#pragma GCC unroll 2
    for (int i = 0; i < n; i += 2) {
      const V first = half[i / 2] * x[i + 1];
      x[i + 1] = half[i / 2] * x[i];
      x[i] = first;
    }
  }
}

// The features of one query and n keys, all as factors, and the sums of v_c t_c over vectors.
template <class A, int n>
inline void features_by_factors(int64_t dim, const A* v, const A* query, const A* key, A* features,
                                typename Vector<A>::type* score) {
  typedef typename Vector<A>::type V;
  V sum[n] = {};
  for (int64_t c = 0; c < dim; c += kVectorLanes<A>) {
    const V q = vector_at(query + c), w = vector_at(v + c), most = V{} + huge<A>();
    V x[n];
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) {
      const V e = q * vector_at(key + j * dim + c) + 1;
      x[j] = most < e ? most : e;  // a NaN remains
    }
    invert<n>(x);
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) {
      const V t = 1 - 2 * x[j];
      vector_at(features + j * dim + c) = t;
      sum[j] += w * t;
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < n; ++j) score[j] = sum[j];
}

// The same for one key and arrays as they came.
template <class T>
inline void features_by_tanh(const AttentionSizes& size, int64_t dim, const Acc<T>* v,
                             const T* query, const T* key, Acc<T>* features,
                             typename Vector<Acc<T>>::type* score) {
#pragma omp simd
  for (int64_t c = 0; c < size.dim; ++c) features[c] = fast_tanh(load(query[c]) + load(key[c]));
  for (int64_t c = size.dim; c < dim; ++c) features[c] = 0;
  *score = typename Vector<Acc<T>>::type{};
  for (int64_t c = 0; c < dim; c += kVectorLanes<Acc<T>>) {
    *score += vector_at(v + c) * vector_at(features + c);
  }
}

// The features of query `query` of example b and n keys, at most as many as a vector has lanes,
// go to buf.features; the result is their scores.  row, col: where the query and the first of the
// keys stand in the buffers.
template <class T, class Buffers>
inline typename Vector<Acc<T>>::type additive_scores(const AdditiveInputs<T>& in,
                                                     const AttentionPlan<Acc<T>>& plan,
                                                     const Buffers& buf, const Acc<T>* factors,
                                                     int64_t b, int64_t query, int64_t row,
                                                     int64_t key, int64_t col, int64_t n) {
  typedef Acc<T> A;
  typename Vector<A>::type score[kVectorLanes<A>] = {};
  if (buf.way[row] == Way::kNone) return score[0];
  const int64_t dim = plan.dim;
  int64_t j = 0;
  if (buf.way[row] == Way::kTanh) {
    const T* k = in.key + (b * in.size.keys + key) * in.size.dim;
    for (; j < n; ++j) {
      features_by_tanh(in.size, dim, buf.v, in.query + (b * in.size.queries + query) * in.size.dim,
                       k + j * in.size.dim, buf.features + j * dim, &score[j]);
    }
  }
  const A *q = buf.query + row * dim, *k = factors + col * dim;
  for (; j + kShared <= n; j += kShared) {
    features_by_factors<A, kShared>(dim, buf.v, q, k + j * dim, buf.features + j * dim, &score[j]);
  }
  for (; j + 2 <= n; j += 2) {
    features_by_factors<A, 2>(dim, buf.v, q, k + j * dim, buf.features + j * dim, &score[j]);
  }
  if (j < n)
    features_by_factors<A, 1>(dim, buf.v, q, k + j * dim, buf.features + j * dim, &score[j]);
  return fold_rows<A, SumOf>(score);
}

// How many of the keys from j on, at most a vector's lanes, a query of this count looks at.
template <class A>
inline int64_t lanes_in_reach(int64_t count, int64_t j) {
  return at_most(count - j, kVectorLanes<A>);
}

// Queries first .. first + n - 1 of example b.
template <class T>
inline void additive_forward_range(const AdditiveInputs<T>& in, const AttentionPlan<Acc<T>>& plan,
                                   const AdditiveForwardBuffers<Acc<T>>& buf, int64_t b,
                                   int64_t first, int64_t n, T* out, Acc<T>* peak,
                                   Acc<T>* inverse) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  copy_rows(in.v, size.dim, 1, size.dim, buf.v, plan.dim);
  copy_rows(in.query + (b * size.queries + first) * size.dim, size.dim, n, size.dim, buf.query,
            plan.dim);
  additive_queries(in, plan, buf, b, first, n);
  const int64_t reach = attention_counts(in, b, first, n, buf.count, [](int64_t) {});
  attention_start_range(buf, n);
  const Dropout dropout = attention_dropout(in);
  if (reach == 0) fill_zero(buf.out, n * plan.value_dim);  // there are no keys at all
  for (int64_t j0 = 0; j0 < reach; j0 += plan.key_block) {
    const int64_t keys = at_most(plan.key_block, reach - j0), row = b * size.keys + j0;
    copy_rows(in.key + row * size.dim, size.dim, keys, size.dim, buf.key, plan.dim);
    exp_twice(buf.key, keys * plan.dim);
    copy_rows(in.value + row * size.value_dim, size.value_dim, keys, size.value_dim, buf.value,
              plan.value_dim);
    for (int64_t i0 = 0; i0 < n; i0 += plan.query_block) {
      const int64_t rows = at_most(plan.query_block, n - i0);
      const int64_t top = keys_in_reach(buf.count + i0, rows, j0, keys);
      for (int64_t j = 0; j < top; j += kVectorLanes<A>) {
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t some = lanes_in_reach<A>(buf.count[i0 + i] - j0, j);
          if (some <= 0) continue;
          vector_at(buf.scores + i * plan.score_ld + j) =
              additive_scores(in, plan, buf, buf.key, b, first + i0 + i, i0 + i, j0 + j, j, some);
        }
      }
      if (top <= 0) continue;
      attention_weigh_block(plan, buf, dropout, dropout_row(size, b, 0, first + i0), i0, rows, j0,
                            top);
    }
  }
  attention_store_range(in, plan, buf, b, 0, first, n, reach > 0, out, peak, inverse);
}

// peak, inverse: m and 1 / l.  workspace: additive_workspace(size, false) bytes.
template <class T>
inline void additive_forward(const AdditiveInputs<T>& in, T* out, Acc<T>* peak, Acc<T>* inverse,
                             void* workspace) {
  typedef Acc<T> A;
  const AttentionPlan<A> plan(in.size);
  const int64_t range = plan.range(), ranges = plan.ranges();
  const int64_t cost =
      at_most(range, in.size.queries) * in.size.keys * (in.size.dim + in.size.value_dim / 8 + 2);
  for_tasks<AdditiveForwardBuffers<A>>(
      plan, plan.heads * ranges, cost, workspace,
      [=](int64_t task, const AdditiveForwardBuffers<A>& buffers) {
        const int64_t first = task % ranges * range;
        additive_forward_range(in, plan, buffers, task / ranges, first,
                               at_most(range, in.size.queries - first), out, peak, inverse);
      });
}

// Adds what one query and n keys, whose features are in buf.features, give to dq, dk (both still
// without v) and dv.
template <class A>
inline void additive_gradients(int64_t dim, int64_t n, const A* ds, const A* features, A* dq, A* dk,
                               A* dv) {
  typedef typename Vector<A>::type V;
  for (int64_t c = 0; c < dim; c += kVectorLanes<A>) {
    V q = vector_at(dq + c), w = vector_at(dv + c);
    for (int64_t j = 0; j < n; ++j) {
      const V t = vector_at(features + j * dim + c), x = ds[j] * t;
      const V u = ds[j] - x * t;
      w += x;
      q += u;
      vector_at(dk + j * dim + c) += u;
    }
    vector_at(dq + c) = q;
    vector_at(dv + c) = w;
  }
}

// Queries i0 .. i0 + rows - 1 and top keys from j0 on: gradients of weights in buf.grad_scores
// become sums in dq, buf.grad_key and buf.block_v, and buf.scores become weights.
template <class T>
inline void additive_backward_block(const AdditiveInputs<T>& in, const AttentionGradients<T>& grads,
                                    const AttentionPlan<Acc<T>>& plan,
                                    const AdditiveBackwardBuffers<Acc<T>>& buf, int64_t b,
                                    int64_t i0, int64_t rows, int64_t j0, int64_t top, Acc<T>* dq) {
  typedef Acc<T> A;
  constexpr int kLanesOfKeys = kVectorLanes<A>;
  for (int64_t j = 0; j < top; j += kLanesOfKeys) {
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = i0 + i, at = i * plan.score_ld + j, saved = b * in.size.queries + row;
      const int64_t some = at_least(0, lanes_in_reach<A>(buf.count[row] - j0, j));
      A *p = buf.scores + at, *ds = buf.grad_scores + at;
      if (some > 0) {
        vector_at(p) = additive_scores(in, plan, buf, buf.key, b, row, row, j0 + j, j, some);
      }
      attention_backward_row(kLanesOfKeys, some, grads.peak[saved], grads.inverse[saved],
                             buf.delta[row], buf.factor[row], p, ds);
      if (some == 0 || buf.way[row] == Way::kNone) continue;
      additive_gradients(plan.dim, some, ds, buf.features, dq + row * plan.dim,
                         buf.grad_key + j * plan.dim, buf.block_v);
    }
  }
}

template <class A>
inline void add_to(const A* from, int64_t count, A* to) {
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) to[c] += from[c];
}

// rows (rows, dim) times v.
template <class A>
inline void times_v(const A* v, int64_t rows, int64_t dim, A* x) {
  for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
    for (int64_t c = 0; c < dim; ++c) x[r * dim + c] *= v[c];
  }
}

// Keys first_key .. last_key - 1 of example b against all its queries, whose buffers are filled;
// their share of dq, still without v, goes to dq (queries, plan.dim), and that of dv to dv.
template <class T>
inline void additive_backward_part(const AdditiveInputs<T>& in, const AttentionGradients<T>& grads,
                                   const AttentionPlan<Acc<T>>& plan,
                                   const AdditiveBackwardBuffers<Acc<T>>& buf, int64_t b,
                                   int64_t first_key, int64_t last_key, Acc<T>* dq, Acc<T>* dv) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const Dropout dropout = attention_dropout(in);
  fill_zero(dq, size.queries * plan.dim);
  fill_zero(dv, plan.dim);
  for (int64_t j0 = first_key; j0 < last_key; j0 += plan.key_block) {
    const int64_t keys = at_most(plan.key_block, last_key - j0), at = b * size.keys + j0;
    const int64_t reach = keys_in_reach(buf.count, size.queries, j0, keys);
    copy_rows(in.key + at * size.dim, size.dim, reach, size.dim, buf.key, plan.dim);
    exp_twice(buf.key, reach * plan.dim);
    pack_transposed(in.value + at * size.value_dim, size.value_dim, reach, size.value_dim,
                    buf.packed_value);
    fill_zero(buf.grad_key, keys * plan.dim);
    fill_zero(buf.grad_value, keys * plan.value_dim);
    for (int64_t i0 = 0; i0 < size.queries; i0 += plan.query_block) {
      const int64_t rows = at_most(plan.query_block, size.queries - i0);
      const int64_t top = keys_in_reach(buf.count + i0, rows, j0, keys);
      if (top <= 0) continue;
      const int64_t cols = padded_to_vector<A>(top);
      const A* grad_out = buf.grad_out + i0 * plan.value_dim;
      gemm<false>(rows, cols, size.value_dim, A(1), grad_out, plan.value_dim,
                  packed_panels(buf.packed_value, size.value_dim), buf.grad_scores, plan.score_ld,
                  false);
      const uint64_t drop_row = dropout_row(size, b, 0, i0);
      drop_weights(dropout, drop_row, rows, j0, cols, buf.grad_scores, plan.score_ld);
      fill_zero(buf.block_v, plan.dim);
      additive_backward_block(in, grads, plan, buf, b, i0, rows, j0, top, dq);
      add_to(buf.block_v, plan.dim, dv);
      drop_weights(dropout, drop_row, rows, j0, cols, buf.scores, plan.score_ld);
      gemm<true>(top, plan.value_dim, rows, A(1), buf.scores, plan.score_ld,
                 panels_of_rows(grad_out, plan.value_dim), buf.grad_value, plan.value_dim, true);
    }
    times_v(buf.v, reach, plan.dim, buf.grad_key);
    store_rows(buf.grad_key, plan.dim, keys, size.dim, grads.grad_key + at * size.dim, size.dim);
    store_rows(buf.grad_value, plan.value_dim, keys, size.value_dim,
               grads.grad_value + at * size.value_dim, size.value_dim);
  }
}

// workspace: additive_workspace(size, true) bytes.
template <class T>
inline void additive_backward(const AdditiveInputs<T>& in, const AttentionGradients<T>& grads,
                              T* grad_v, void* workspace) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const AttentionPlan<A> plan(size);
  const int64_t parts = plan.parts(), tasks = plan.heads * parts;
  const int64_t line = line_bytes<A>(plan.dim) / sizeof(A);
  A *sums_v = static_cast<A*>(workspace), *partials = sums_v + tasks * line;
  void* rest = parts > 1 ? partials + tasks * plan.partial() : partials;
  for_tasks<AdditiveBackwardBuffers<A>>(
      plan, tasks, size.queries * size.keys * (2 * size.dim + size.value_dim / 4 + 2) / parts, rest,
      [=](int64_t task, const AdditiveBackwardBuffers<A>& buf) {
        const int64_t b = task / parts, part = task % parts, blocks = plan.key_blocks();
        A* dq = parts > 1 ? partials + task * plan.partial() : buf.grad_query;
        copy_rows(in.v, size.dim, 1, size.dim, buf.v, plan.dim);
        attention_backward_queries(in, grads, plan, buf, b, 0);
        additive_queries(in, plan, buf, b, 0, size.queries);
        additive_backward_part(in, grads, plan, buf, b, part * blocks / parts * plan.key_block,
                               at_most((part + 1) * blocks / parts * plan.key_block, size.keys), dq,
                               sums_v + task * line);
        times_v(buf.v, size.queries, plan.dim, dq);
        if (parts > 1) return;
        store_rows(dq, plan.dim, size.queries, size.dim,
                   grads.grad_query + b * size.queries * size.dim, size.dim);
      });
  for (int64_t c = 0; c < size.dim; ++c) {
    double total = 0;  // as the sums over rows do in rows.h
    for (int64_t task = 0; task < tasks; ++task) total += sums_v[task * line + c];
    grad_v[c] = store<T>(static_cast<A>(total));
  }
  if (parts == 1) return;
  attention_sum_parts(plan, partials, [=](const A* total, int64_t b, int64_t i) {
    store_rows(total, plan.dim, 1, size.dim, grads.grad_query + (b * size.queries + i) * size.dim,
               size.dim);
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_ADDITIVE_ATTENTION_H_
