// An activation function of every element.
//
//   y = f(x),  f one of common/activations.h
//
// Layout: x, y, dy, dx are n numbers.
// Saved for backward: nothing besides x (gelu) or y (the others).
// Gradient: dx = f'(x) * dy, see common/activations.h.
#ifndef D2L_ACTIVATION_H_
#define D2L_ACTIVATION_H_

#include "common/activations.h"

namespace d2l {
inline namespace D2L_ISA {

struct ActivationParams {
  Activation act_type = Activation::kRelu;
};

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "common/parallel.h"

namespace d2l {
inline namespace D2L_ISA {

// body(begin, end) on pieces of 0 .. n - 1 that begin where whole vectors do, however many threads
// there are.
template <class Body>
inline void for_elements(int64_t n, const Body& body) {
  constexpr int64_t kPiece = 1024;
  parallel_for((n + kPiece - 1) / kPiece, kPiece * kActivationCost,
               [=](int64_t begin, int64_t end) {
                 body(begin * kPiece, end * kPiece < n ? end * kPiece : n);
               });
}

template <class T>
struct ActivationForward {
  const T* x;
  int64_t n;
  T* y;

  template <class F>
  void with() const {
    for_elements(n, [x = x, y = y](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) y[i] = store<T>(F::apply(load(x[i])));
    });
  }
};

template <class T>
struct ActivationBackward {
  const T *dy, *x, *y;
  int64_t n;
  T* dx;

  template <class F>
  void with() const {
    const T* saved = F::kFromInput ? x : y;
    for_elements(n, [dy = dy, saved, dx = dx](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        dx[i] = store<T>(F::gradient(load(saved[i]), load(dy[i])));
      }
    });
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_ACTIVATION_H_
