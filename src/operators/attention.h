// Scaled dot product attention with several heads (Vaswani et al., 2017, section 3.2), in which
// the scores of all queries and keys are never stored (Dao et al., FlashAttention, 2022).
//
//   s_ij = scale <q_i, k_j>,  p_ij = exp(s_ij - m_i) / l_i for j < n_i, else 0,  o_i = sum_j p_ij
//   v_j m_i = max over j < n_i of s_ij,  l_i = sum over j < n_i of exp(s_ij - m_i)
//
// n_i = ceil(valid_len) clipped to 0 .. keys (a NaN counts as 0), with causal at most
// i + 1 + max(0, keys - queries).  Where n_i = 0, p_ij = 1 / keys for all keys, as in the book.
// Dropout multiplies p_ij by 0 or by 1 / (1 - rate) where it weighs v_j, after the sum l_i.
//
// Layout: q (batch, queries, heads * dim), k (batch, keys, heads * dim), v (batch, keys,
// heads * value_dim), o (batch, queries, heads * value_dim): a head is a part of the last axis and
// stays where it is.  Saved for backward: m and 1 / l, (batch, heads, queries) each.
// Gradient, with D_i = <do_i, o_i>, r_ij the factor of dropout, p computed again:
//
//   dv_j = sum_i r_ij p_ij do_i,  ds_ij = p_ij (r_ij <do_i, v_j> - D_i), 0 where n_i = 0,
//   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i
//
// Queries whose do_i is zero, as padding leaves them, take on the CPU no part in backward.
//
// Forward works on blocks of queries by blocks of keys with a running maximum: when m_i grows, o_i
// and l_i shrink by exp(old - new).  Keys and values that no query of a range looks at are not
// read, not even NaN.  Everything is cut by shapes alone, so results do not depend on the number of
// threads.
#ifndef D2L_ATTENTION_H_
#define D2L_ATTENTION_H_

#include <math.h>

#include "common/attention_blocks.h"

namespace d2l {
inline namespace D2L_ISA {

struct AttentionParams {
  int64_t num_heads = 1;
  bool causal = false;
  double scale = 0;  // 0: 1 / sqrt(dim)
  double dropout = 0;
};

inline AttentionSizes attention_sizes(const AttentionParams& params, const Tensor* in) {
  const Shape &query = in[0].shape, &value = in[2].shape;
  const int64_t heads = params.num_heads;
  return {query.dim[0],        heads, query.dim[1], value.dim[1], query.dim[2] / heads,
          value.dim[2] / heads};
}

// in: query, key, value, valid_len, seed.
template <class T>
inline AttentionInputs<T> attention_inputs(const AttentionParams& params, const Tensor* in) {
  const AttentionSizes size = attention_sizes(params, in);
  const double usual = size.dim > 0 ? 1 / sqrt(static_cast<double>(size.dim)) : 1;
  return {size,
          data<T>(in[0]),
          data<T>(in[1]),
          data<T>(in[2]),
          lengths_of(in[3], {3, {size.batch, size.queries, size.keys}}),
          given(in[4]) ? data<float>(in[4]) : nullptr,
          params.causal,
          params.dropout,
          static_cast<Acc<T>>(params.scale > 0 ? params.scale : usual)};
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

template <class A>
inline int64_t attention_workspace(const AttentionSizes& size, bool backward) {
  const AttentionPlan<A> plan(size);
  if (!backward) {
    return lanes_of<AttentionForwardBuffers<A>>(plan, plan.heads * plan.ranges()) *
           bytes_of<AttentionForwardBuffers<A>>(plan);
  }
  const int64_t tasks = plan.heads * plan.parts();
  return lanes_of<AttentionBackwardBuffers<A>>(plan, tasks) *
             bytes_of<AttentionBackwardBuffers<A>>(plan) +
         (plan.parts() > 1 ? tasks * plan.partial() * sizeof(A) : 0);
}

// Queries first .. first + n - 1 of one head.
template <class T>
inline void attention_forward_range(const AttentionInputs<T>& in, const AttentionPlan<Acc<T>>& plan,
                                    const AttentionForwardBuffers<Acc<T>>& buf, int64_t b,
                                    int64_t head, int64_t first, int64_t n, T* out, Acc<T>* peak,
                                    Acc<T>* inverse) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const int64_t width = size.heads * size.dim, value_width = size.heads * size.value_dim;
  copy_rows(in.query + (b * size.queries + first) * width + head * size.dim, width, n, size.dim,
            buf.query, plan.dim);
  const int64_t reach = attention_counts(in, b, first, n, buf.count, [&](int64_t i) {
    for (int64_t c = 0; c < plan.dim; ++c) buf.query[i * plan.dim + c] = 0;
  });
  attention_start_range(buf, n);
  const Dropout dropout = attention_dropout(in);
  if (reach == 0) fill_zero(buf.out, n * plan.value_dim);  // there are no keys at all
  for (int64_t j0 = 0; j0 < reach; j0 += plan.key_block) {
    const int64_t keys = at_most(plan.key_block, reach - j0);
    const int64_t row = b * size.keys + j0;
    pack_transposed(in.key + row * width + head * size.dim, width, keys, size.dim, buf.key);
    copy_rows(in.value + row * value_width + head * size.value_dim, value_width, keys,
              size.value_dim, buf.value, plan.value_dim);
    for (int64_t i0 = 0; i0 < n; i0 += plan.query_block) {
      const int64_t rows = at_most(plan.query_block, n - i0);
      const int64_t top = keys_in_reach(buf.count + i0, rows, j0, keys);
      if (top <= 0) continue;
      const int64_t cols = padded_to_vector<A>(top);
      gemm<false>(rows, cols, size.dim, in.scale, buf.query + i0 * plan.dim, plan.dim,
                  packed_panels(buf.key, size.dim), buf.scores, plan.score_ld, false);
      attention_weigh_block(plan, buf, dropout, dropout_row(size, b, head, first + i0), i0, rows,
                            j0, top);
    }
  }
  attention_store_range(in, plan, buf, b, head, first, n, reach > 0, out, peak, inverse);
}

// peak, inverse: m and 1 / l.  workspace: attention_workspace(size, false) bytes.
template <class T>
inline void attention_forward(const AttentionInputs<T>& in, T* out, Acc<T>* peak, Acc<T>* inverse,
                              void* workspace) {
  typedef Acc<T> A;
  const AttentionPlan<A> plan(in.size);
  const int64_t range = plan.range(), ranges = plan.ranges();
  const int64_t cost = range * in.size.keys * (in.size.dim + in.size.value_dim + 16) / 8;
  for_tasks<AttentionForwardBuffers<A>>(
      plan, plan.heads * ranges, cost, workspace,
      [=](int64_t task, const AttentionForwardBuffers<A>& buffers) {
        const int64_t head = task / ranges, first = task % ranges * range;
        attention_forward_range(in, plan, buffers, head / in.size.heads, head % in.size.heads,
                                first, at_most(range, in.size.queries - first), out, peak, inverse);
      });
}

// Queries without a gradient leave the buffers, the others close up; buf.place gets their numbers.
// Returns how many remain.
template <class A>
inline int64_t attention_keep_queries(const AttentionPlan<A>& plan,
                                      const AttentionBackwardBuffers<A>& buf) {
  const int64_t count = nonzero_rows(buf.grad_out, plan.size.queries, plan.value_dim, buf.place);
  for (int64_t to = 0; to < count; ++to) {
    const int64_t from = buf.place[to];
    if (from == to) continue;
    copy_rows(buf.query + from * plan.dim, 0, 1, plan.dim, buf.query + to * plan.dim, plan.dim);
    copy_rows(buf.grad_out + from * plan.value_dim, 0, 1, plan.value_dim,
              buf.grad_out + to * plan.value_dim, plan.value_dim);
    buf.count[to] = buf.count[from];
    buf.delta[to] = buf.delta[from];
    buf.factor[to] = buf.factor[from];
  }
  return count;
}

// Keys first_key .. last_key - 1 of one head against those of its queries that are in the buffers;
// their share of dq goes to grad_query (queries, plan.dim).
template <class T>
inline void attention_backward_part(const AttentionInputs<T>& in,
                                    const AttentionGradients<T>& grads,
                                    const AttentionPlan<Acc<T>>& plan,
                                    const AttentionBackwardBuffers<Acc<T>>& buf, int64_t b,
                                    int64_t head, int64_t queries, int64_t first_key,
                                    int64_t last_key, Acc<T>* grad_query) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const int64_t width = size.heads * size.dim, value_width = size.heads * size.value_dim;
  const Dropout dropout = attention_dropout(in);
  for (int64_t j0 = first_key; j0 < last_key; j0 += plan.key_block) {
    const int64_t keys = at_most(plan.key_block, last_key - j0);
    const int64_t reach = keys_in_reach(buf.count, queries, j0, keys);
    const int64_t key_at = (b * size.keys + j0) * width + head * size.dim;
    const int64_t value_at = (b * size.keys + j0) * value_width + head * size.value_dim;
    pack_transposed(in.key + key_at, width, reach, size.dim, buf.packed_key);
    pack_transposed(in.value + value_at, value_width, reach, size.value_dim, buf.packed_value);
    copy_rows(in.key + key_at, width, reach, size.dim, buf.key, plan.dim);
    fill_zero(buf.grad_key, keys * plan.dim);
    fill_zero(buf.grad_value, keys * plan.value_dim);
    for (int64_t i0 = 0; i0 < queries; i0 += plan.query_block) {
      const int64_t rows = at_most(plan.query_block, queries - i0);
      const int64_t top = keys_in_reach(buf.count + i0, rows, j0, keys);
      A* dq = grad_query + i0 * plan.dim;
      if (j0 == first_key && top <= 0) fill_zero(dq, rows * plan.dim);
      if (top <= 0) continue;
      const int64_t cols = padded_to_vector<A>(top);
      const A *query = buf.query + i0 * plan.dim, *grad_out = buf.grad_out + i0 * plan.value_dim;
      gemm<false>(rows, cols, size.dim, in.scale, query, plan.dim,
                  packed_panels(buf.packed_key, size.dim), buf.scores, plan.score_ld, false);
      gemm<false>(rows, cols, size.value_dim, A(1), grad_out, plan.value_dim,
                  packed_panels(buf.packed_value, size.value_dim), buf.grad_scores, plan.score_ld,
                  false);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = i0 + i, saved = (b * size.heads + head) * size.queries + buf.place[row];
        A *p = buf.scores + i * plan.score_ld, *ds = buf.grad_scores + i * plan.score_ld;
        const uint64_t drop_row = dropout_row(size, b, head, buf.place[row]);
        drop_weights(dropout, drop_row, 1, j0, cols, ds, plan.score_ld);
        attention_backward_row(cols, buf.count[row] - j0, grads.peak[saved], grads.inverse[saved],
                               buf.delta[row], buf.factor[row], p, ds);
        drop_weights(dropout, drop_row, 1, j0, cols, p, plan.score_ld);
      }
      gemm<true>(top, plan.value_dim, rows, A(1), buf.scores, plan.score_ld,
                 panels_of_rows(grad_out, plan.value_dim), buf.grad_value, plan.value_dim, true);
      gemm<true>(top, plan.dim, rows, A(1), buf.grad_scores, plan.score_ld,
                 panels_of_rows(query, plan.dim), buf.grad_key, plan.dim, true);
      gemm<false>(rows, plan.dim, top, A(1), buf.grad_scores, plan.score_ld,
                  panels_of_rows(buf.key, plan.dim), dq, plan.dim, j0 > first_key);
    }
    store_rows(buf.grad_key, plan.dim, keys, size.dim, grads.grad_key + key_at, width,
               worth_streaming<T>(size.batch * size.keys * width));
    store_rows(buf.grad_value, plan.value_dim, keys, size.value_dim, grads.grad_value + value_at,
               value_width, worth_streaming<T>(size.batch * size.keys * value_width));
  }
}

// workspace: attention_workspace(size, true) bytes.
template <class T>
inline void attention_backward(const AttentionInputs<T>& in, const AttentionGradients<T>& grads,
                               void* workspace) {
  typedef Acc<T> A;
  const AttentionSizes& size = in.size;
  const AttentionPlan<A> plan(size);
  const int64_t parts = plan.parts(), width = size.heads * size.dim;
  A* partials = static_cast<A*>(workspace);
  void* rest = parts > 1 ? partials + plan.heads * parts * plan.partial() : partials;
  const auto query_at = [=](int64_t head) {
    return head / size.heads * size.queries * width + head % size.heads * size.dim;
  };
  for_tasks<AttentionBackwardBuffers<A>>(
      plan, plan.heads * parts,
      size.queries * size.keys * (3 * size.dim + 2 * size.value_dim + 16) / parts / 8, rest,
      [=](int64_t task, const AttentionBackwardBuffers<A>& buf) {
        const int64_t head = task / parts, part = task % parts, blocks = plan.key_blocks();
        const int64_t b = head / size.heads, h = head % size.heads;
        A* grad_query = parts > 1 ? partials + task * plan.partial() : buf.grad_query;
        attention_backward_queries(in, grads, plan, buf, b, h);
        const int64_t kept = attention_keep_queries(plan, buf);
        attention_backward_part(
            in, grads, plan, buf, b, h, kept, part * blocks / parts * plan.key_block,
            at_most((part + 1) * blocks / parts * plan.key_block, size.keys), grad_query);
        if (kept < size.queries) {
          spread_rows(buf.place, kept, size.queries, plan.dim, grad_query);
        }
        if (size.keys == 0) fill_zero(grad_query, size.queries * plan.dim);
        if (parts > 1) return;
        store_rows(grad_query, plan.dim, size.queries, size.dim, grads.grad_query + query_at(head),
                   width, worth_streaming<T>(size.batch * size.queries * width));
      });
  if (parts == 1) return;
  attention_sum_parts(plan, partials, [=](const A* total, int64_t head, int64_t i) {
    store_rows(total, plan.dim, 1, size.dim, grads.grad_query + query_at(head) + i * width, width);
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_ATTENTION_H_
