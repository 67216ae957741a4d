// Softmax over the last axis of which only the first valid_len entries of a row count.
//
//   y_i = exp(x_i - m) / sum over j < n of exp(x_j - m),  m = max over j < n of x_j,  for i < n
//   y_i = 0 for i >= n, whatever x_i is (infinity and NaN too: it is never read)
//   y_i = 1 / cols for all i where n = 0: a row without valid entries is uniform, as in the book,
//   where such a row is softmax of equal scores
//
// n = ceil(valid_len) clipped to 0 .. cols; a NaN counts as 0.
// Layout: x, y, dy, dx are (rows, cols), row-major; consecutive rows share an entry of valid_len.
// Saved for backward: y.
// Gradient: dx_i = y_i (dy_i - sum over j < n of y_j dy_j) for i < n, else 0; 0 where n = 0.
// valid_len has no gradient.  Source: Dive into Deep Learning, section 10.1.
#ifndef D2L_MASKED_SOFTMAX_H_
#define D2L_MASKED_SOFTMAX_H_

#include "common/lengths.h"
#include "common/rows.h"
#include "common/vec_math.h"

namespace d2l {
inline namespace D2L_ISA {

struct MaskedSoftmaxParams {};

// The formula of one element of the gradient, for every target.
template <class A>
D2L_HOST_DEVICE inline A masked_softmax_dx(A y, A dy, A sum_y_dy) {
  return y * (dy - sum_y_dy);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "common/reduce.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T>
inline void fill(T* y, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) y[i] = value;
}

// One row with n > 0 valid entries.
template <class T>
inline void masked_softmax_row(const T* x, int64_t n, T* y) {
  typedef Acc<T> A;
  const A m = maximum<A>(n, -INFINITY, [=](int64_t i) { return load(x[i]); });
  if (sizeof(T) == sizeof(A)) {
    const A total = sum<A>(n, [=](int64_t i) {
      const A e = fast_exp(load(x[i]) - m);
      y[i] = store<T>(e);
      return e;
    });
    const A scale = A(1) / total;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = store<T>(load(y[i]) * scale);
  } else {
    // Rounding to T comes once, at the end, at the price of a second exp.
    const A scale = A(1) / sum<A>(n, [=](int64_t i) { return fast_exp(load(x[i]) - m); });
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = store<T>(fast_exp(load(x[i]) - m) * scale);
  }
}

template <class T>
inline void masked_softmax_forward(const T* x, const Lengths& lengths, int64_t rows, int64_t cols,
                                   T* y) {
  parallel_for(rows, 16 * cols, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = valid_length(lengths, r, cols);
      T* yr = y + r * cols;
      if (n == 0) {
        fill(yr, cols, store<T>(Acc<T>(1) / Acc<T>(cols)));
        continue;
      }
      masked_softmax_row(x + r * cols, n, yr);
      fill(yr + n, cols - n, store<T>(Acc<T>(0)));
    }
  });
}

template <class T>
inline void masked_softmax_backward(const T* dy, const T* y, const Lengths& lengths, int64_t rows,
                                    int64_t cols, T* dx) {
  typedef Acc<T> A;
  parallel_for(rows, 4 * cols, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = valid_length(lengths, r, cols);
      const T *dyr = dy + r * cols, *yr = y + r * cols;
      T* dxr = dx + r * cols;
      const A total = sum<A>(n, [=](int64_t i) { return load(yr[i]) * load(dyr[i]); });
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        dxr[i] = store<T>(masked_softmax_dx(load(yr[i]), load(dyr[i]), total));
      }
      fill(dxr + n, cols - n, store<T>(A(0)));
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_MASKED_SOFTMAX_H_
