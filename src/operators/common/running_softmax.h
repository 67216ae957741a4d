// Softmax of rows that come in blocks of columns (Milakov and Gimelshein, Online normalizer
// calculation for softmax, 2018): when a row's maximum grows, what was summed up before shrinks.
// And dropout of the weights that come of it.
#ifndef D2L_COMMON_RUNNING_SOFTMAX_H_
#define D2L_COMMON_RUNNING_SOFTMAX_H_

#include "dropout.h"
#include "tasks.h"
#include "vec_math.h"

namespace d2l {
inline namespace D2L_ISA {

template <class A>
struct LargerOf {
  typedef typename Vector<A>::type V;
  static V of(V a, V b) { return a > b ? a : b; }
};
template <class A>
struct SumOf {
  typedef typename Vector<A>::type V;
  static V of(V a, V b) { return a + b; }
};

// Lane r of the result is rows[r] folded to one value.
template <class A, template <class> class Fold>
inline typename Vector<A>::type fold_rows(typename Vector<A>::type* rows) {
#pragma GCC unroll 4
  for (int n = kVectorLanes<A> / 2; n > 0; n /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      Interleave<A>::zip(&rows[i], &rows[i + n]);
      rows[i] = Fold<A>::of(rows[i], rows[i + n]);
    }
  }
  return rows[0];
}

// A block of scores becomes exp(s - peak), 0 beyond a row's count, and the rows' running peak and
// total take it in.  cols are whole vectors; correction: by how much earlier sums shrink.
template <class A>
inline void running_softmax(A* scores, int64_t ld, int64_t rows, int64_t cols, const int64_t* count,
                            int64_t first_key, A* peak, A* total, A* correction) {
  typedef typename Vector<A>::type V;
  constexpr int n = kVectorLanes<A>;
  for (int64_t r0 = 0; r0 < rows; r0 += n) {
    const int64_t some = at_most(rows - r0, n);
    V folded[n], *running = reinterpret_cast<V*>(peak + r0);
    for (int64_t r = 0; r < n; ++r) folded[r] = *running;
    for (int64_t r = 0; r < some; ++r) {
      A* s = scores + (r0 + r) * ld;
      for (int64_t j = at_least(0, count[r0 + r] - first_key); j < cols; ++j) s[j] = -INFINITY;
      V best = *reinterpret_cast<V*>(s);
      for (int64_t j = n; j < cols; j += n) {
        best = LargerOf<A>::of(best, *reinterpret_cast<V*>(s + j));
      }
      folded[r] = best;
    }
    const V before = *running, now = LargerOf<A>::of(before, fold_rows<A, LargerOf>(folded));
    *running = now;
    A* shrink = correction + r0;
#pragma omp simd
    for (int i = 0; i < n; ++i) shrink[i] = fast_exp_nonpositive(before[i] - now[i]);
    for (int64_t r = 0; r < n; ++r) folded[r] = V{};
    for (int64_t r = 0; r < some; ++r) {
      A* s = scores + (r0 + r) * ld;
      const A m = now[r];
      V sum = {};
      for (int64_t j = 0; j < cols; j += n) {
#pragma omp simd
        for (int i = 0; i < n; ++i) s[j + i] = fast_exp_nonpositive(s[j + i] - m);
        sum += *reinterpret_cast<V*>(s + j);
      }
      folded[r] = sum;
    }
    V* sums = reinterpret_cast<V*>(total + r0);
    *sums = *sums * *reinterpret_cast<V*>(shrink) + fold_rows<A, SumOf>(folded);
  }
}

// Multiplies a block of weights, or of their gradients, by the factors of dropout.
template <class A>
inline void drop_weights(const Dropout& dropout, uint64_t first_row, int64_t rows,
                         int64_t first_key, int64_t cols, A* weights, int64_t ld) {
  if (!dropout.active) return;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += kDropoutBlock) {
      A factor[kDropoutBlock];
      dropout_block(dropout, first_row + i, static_cast<uint32_t>((first_key + j) / kDropoutBlock),
                    factor);
      A* w = weights + i * ld + j;
      const int64_t n = at_most(cols - j, kDropoutBlock);
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) w[c] *= factor[c];
    }
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_RUNNING_SOFTMAX_H_
