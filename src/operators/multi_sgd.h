// Stochastic gradient descent on a list of weights, in place, with momentum if there are momenta:
//
//   g = clip(rescale_grad * grad, -clip_gradient .. clip_gradient) + wd * w
//   m = momentum * m - lr * g,  w = w + m    (w = w - lr * g without momenta)
//
// lr and wd are those of each array.  The learning rate is part of m, as in MXNet's SGD.
// Mixed precision: w and m are float32, grad is float16, and w is also written rounded to float16.
// Layout: lists of arrays, cut into blocks by common/tensor_list.h.  No gradient.
// Source: Sutskever, Martens, Dahl and Hinton, 2013, section 2.
#ifndef D2L_MULTI_SGD_H_
#define D2L_MULTI_SGD_H_

#include <math.h>

#include "common/tensor_list.h"

namespace d2l {
inline namespace D2L_ISA {

struct MultiSgdParams {
  int64_t num_weights = 1;
  RealList lrs = {nullptr, 0}, wds = {nullptr, 0};
  double momentum = 0, rescale_grad = 1;
  double clip_gradient = 0;  // 0: no limit
};

// What holds for all elements of one array, in the type of computation.
template <class A>
struct SgdRates {
  A lr, wd, momentum, rescale, bound;
};

template <class A>
inline SgdRates<A> sgd_rates(const MultiSgdParams& p, double lr, double wd) {
  return {A(lr), A(wd), A(p.momentum), A(p.rescale_grad),
          p.clip_gradient > 0 ? A(p.clip_gradient) : A(INFINITY)};
}

// The step of one element, which is also its new momentum.
template <class A>
D2L_HOST_DEVICE inline A sgd_step(const SgdRates<A>& r, A w, A g, A m) {
  return r.momentum * m - r.lr * (clipped(r.rescale * g, r.bound) + r.wd * w);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <type_traits>

namespace d2l {
inline namespace D2L_ISA {

// One block.  m: null without momentum.  rounded: for G other than T only.
template <class T, class G>
inline void sgd_block(const SgdRates<Acc<T>>& rates, const G* g, int64_t n, T* w, T* m,
                      half* rounded) {
  typedef Acc<T> A;
  const SgdRates<A> r = rates;
  if (m) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const A step = sgd_step<A>(r, load(w[i]), load(g[i]), load(m[i]));
      const A next = load(w[i]) + step;
      m[i] = store<T>(step);
      w[i] = store<T>(next);
      if constexpr (!std::is_same<T, G>::value) rounded[i] = store<half>(next);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const A next = load(w[i]) + sgd_step<A>(r, load(w[i]), load(g[i]), A(0));
      w[i] = store<T>(next);
      if constexpr (!std::is_same<T, G>::value) rounded[i] = store<half>(next);
    }
  }
}

// workspace: 3 n + 1 numbers of 8 bytes.
template <class T, class G>
inline void multi_sgd_update(const MultiSgdParams& p, const Tensor* in, void* workspace) {
  const int64_t n = p.num_weights;
  int64_t* first = static_cast<int64_t*>(workspace);
  double *lrs = static_cast<double*>(workspace) + n + 1, *wds = lrs + n;
  read_list(p.lrs, 0, n, lrs);
  read_list(p.wds, 0, n, wds);
  const Tensor *weights = in, *grads = in + n, *momenta = in + 2 * n, *rounded = in + 3 * n;
  for_each_block(weights, n, 4, first, [=, &p](int64_t i, int64_t begin, int64_t end, int64_t) {
    sgd_block<T, G>(sgd_rates<Acc<T>>(p, lrs[i], wds[i]), data<G>(grads[i]) + begin, end - begin,
                    data<T>(weights[i]) + begin,
                    given(momenta[i]) ? data<T>(momenta[i]) + begin : nullptr,
                    given(rounded[i]) ? data<half>(rounded[i]) + begin : nullptr);
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_MULTI_SGD_H_
