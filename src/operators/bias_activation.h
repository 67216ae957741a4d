// An activation function of data + bias, the bias being added along the last axis: what follows
// the matrix product in a dense layer.
//
//   y = f(x + b),  f one of common/activations.h
//
// Layout: x, y, dy, dx are (rows, cols), row-major; b, db (cols,).
// Saved for backward: nothing besides x and b (gelu) or y (the others).
// Gradient: dx = f'(x + b) * dy, see common/activations.h;  db = sum over rows of dx, as
// common/rows.h says, in the same pass.
#ifndef D2L_BIAS_ACTIVATION_H_
#define D2L_BIAS_ACTIVATION_H_

#include "common/activations.h"
#include "common/rows.h"

namespace d2l {
inline namespace D2L_ISA {

struct BiasActivationParams {
  Activation act_type = Activation::kRelu;
};

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

template <class T>
struct BiasActivationForward {
  const T *x, *b;
  int64_t rows, cols;
  T* y;

  template <class F>
  void with() const {
    const int64_t cost = kActivationCost * cols;
    parallel_for(rows, cost, [x = x, b = b, y = y, cols = cols](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* xr = x + r * cols;
        T* yr = y + r * cols;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) yr[i] = store<T>(F::apply(load(xr[i]) + load(b[i])));
      }
    });
  }
};

// workspace: row_blocks(rows) * cols sums.
template <class T>
struct BiasActivationBackward {
  const T *dy, *x, *b, *y;
  int64_t rows, cols;
  T *dx, *db;
  Acc<T>* workspace;

  template <class F>
  void with() const {
    typedef Acc<T> A;
    const auto add = [dy = dy, x = x, b = b, y = y, dx = dx, cols = cols](int64_t r, A* sums) {
      const T *dyr = dy + r * cols, *xr = x + r * cols, *yr = y + r * cols;
      T* dxr = dx + r * cols;
#pragma omp simd
      for (int64_t i = 0; i < cols; ++i) {
        const A d = bias_activation_dx<F>(load(dyr[i]), load(xr[i]), load(b[i]), load(yr[i]));
        dxr[i] = store<T>(d);
        sums[i] += d;
      }
    };
    sum_over_rows<A>(rows, cols, 1, kActivationCost * cols, workspace, add,
                     [db = db](int64_t i, A total) { db[i] = store<T>(total); });
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_BIAS_ACTIVATION_H_
