// Layer normalization over the last axis (Ba, Kiros and Hinton, 2016, equations 3 and 4).
//
//   xhat = (x - mean) * rstd,  rstd = 1 / sqrt(variance + eps),  y = gamma * xhat + beta
//
// Layout: x, y, dy, dx are (rows, cols), row-major; gamma, beta (cols,); mean, rstd (rows,).
// Saved for backward: mean and rstd, in float32 (float64 for float64).
// Gradient, with h = gamma * dy and < > the mean over a row:
//
//   dx = rstd * (h - <h> - xhat * <h * xhat>),  dgamma = sum over rows of dy * xhat,
//   dbeta = sum over rows of dy
//
// dgamma and dbeta are summed as common/rows.h says.
#ifndef D2L_LAYER_NORM_H_
#define D2L_LAYER_NORM_H_

#include "common/rows.h"

namespace d2l {
inline namespace D2L_ISA {

struct LayerNormParams {
  double eps = 1e-5;
};

// The formulas of one element, for every target.
template <class A>
D2L_HOST_DEVICE inline A layer_norm_xhat(A x, A mean, A rstd) {
  return (x - mean) * rstd;
}

template <class A>
D2L_HOST_DEVICE inline A layer_norm_dx(A h, A xhat, A rstd, A mean_h, A mean_h_xhat) {
  return rstd * (h - mean_h - xhat * mean_h_xhat);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <math.h>

#include "common/reduce.h"

namespace d2l {
inline namespace D2L_ISA {

// Mean and variance in two passes.  The second pass also sums the deviations: that sum would be 0
// if the mean were exact, so it corrects the mean where it is large against the spread.
template <class T>
inline void layer_norm_moments(const T* x, int64_t cols, Acc<T>* mean, Acc<T>* variance) {
  typedef Acc<T> A;
  const A scale = A(1) / A(cols);
  const A first = sum<A>(cols, [=](int64_t i) { return load(x[i]); }) * scale;
  A deviations, squares;
  sum2<A>(cols, &deviations, &squares, [=](int64_t i, A& deviation, A& square) {
    deviation = load(x[i]) - first;
    square = deviation * deviation;
  });
  const A correction = deviations * scale;
  *mean = first + correction;
  *variance = squares * scale - correction * correction;
}

// One row of forward.  X: the type of x, T or a more precise one; streamed as in store_row.
template <class T, class X>
inline void layer_norm_forward_row(const X* x, const T* gamma, const T* beta, int64_t cols,
                                   Acc<T> eps, bool streamed, T* y, Acc<T>* mean, Acc<T>* rstd) {
  typedef Acc<T> A;
  A mu, variance;
  layer_norm_moments(x, cols, &mu, &variance);
  const A rs = A(1) / sqrt(variance + eps);
  store_row(cols, y, streamed, [=](int64_t i) {
    return layer_norm_xhat(load(x[i]), mu, rs) * load(gamma[i]) + load(beta[i]);
  });
  *mean = mu;
  *rstd = rs;
}

template <class T>
inline void layer_norm_forward(const T* x, const T* gamma, const T* beta, int64_t rows,
                               int64_t cols, Acc<T> eps, T* y, Acc<T>* mean, Acc<T>* rstd) {
  const bool streamed = worth_streaming<T>(rows * cols);
  parallel_for(rows, 4 * cols, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      layer_norm_forward_row(x + r * cols, gamma, beta, cols, eps, streamed, y + r * cols, mean + r,
                             rstd + r);
    }
  });
}

// One row of backward: writes dx, which may be x and is streamed as in store_row, and adds to the
// block's dgamma and dbeta.
template <class T, class X>
inline void layer_norm_backward_row(const T* dy, const X* x, const T* gamma, int64_t cols,
                                    Acc<T> mean, Acc<T> rstd, bool streamed, X* dx, Acc<T>* dgamma,
                                    Acc<T>* dbeta) {
  typedef Acc<T> A;
  A sum_h, sum_h_xhat;
  sum2<A>(cols, &sum_h, &sum_h_xhat, [=](int64_t i, A& h, A& h_xhat) {
    const A g = load(dy[i]), xhat = layer_norm_xhat(load(x[i]), mean, rstd);
    dgamma[i] += g * xhat;
    dbeta[i] += g;
    h = g * load(gamma[i]);
    h_xhat = h * xhat;
  });
  const A mean_h = sum_h / A(cols), mean_h_xhat = sum_h_xhat / A(cols);
  store_row(cols, dx, streamed, [=](int64_t i) {
    const A xhat = layer_norm_xhat(load(x[i]), mean, rstd);
    return layer_norm_dx(load(dy[i]) * load(gamma[i]), xhat, rstd, mean_h, mean_h_xhat);
  });
}

// workspace: row_blocks(rows) * 2 * cols sums.
template <class T>
inline void layer_norm_backward(const T* dy, const T* x, const T* gamma, const Acc<T>* mean,
                                const Acc<T>* rstd, int64_t rows, int64_t cols, T* dx, T* dgamma,
                                T* dbeta, Acc<T>* workspace) {
  typedef Acc<T> A;
  const bool streamed = worth_streaming<T>(rows * cols);
  sum_over_rows<A>(
      rows, cols, 2, 6 * cols, workspace,
      [=](int64_t r, A* sums) {
        layer_norm_backward_row(dy + r * cols, x + r * cols, gamma, cols, mean[r], rstd[r],
                                streamed, dx + r * cols, sums, sums + cols);
      },
      [=](int64_t i, A total) { (i < cols ? dgamma[i] : dbeta[i - cols]) = store<T>(total); });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_LAYER_NORM_H_
