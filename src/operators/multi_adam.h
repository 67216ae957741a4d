// Adam and AdamW on a list of weights, in place:
//
//   Adam:   g = clip(rescale_grad * grad + wd * w)     AdamW: g = clip(rescale_grad * grad)
//   m = beta1 * m + (1 - beta1) * g,  v = beta2 * v + (1 - beta2) * g^2
//   Adam:   w = w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)
//   AdamW:  w = w - lr * (m / c1 / (sqrt(v / c2) + epsilon) + wd * w)
//
// with c1 = 1 - beta1^t, c2 = 1 - beta2^t (both 1 without bias correction), clip to
// -clip_gradient .. clip_gradient, and lr, wd and the step t those of each array.
// Mixed precision: w, m and v are float32, grad is float16, and w is also written rounded to
// float16.  Layout: lists of arrays, cut into blocks by common/tensor_list.h.  No gradient.
// Source: Kingma and Ba, 2015, section 2 (its last form, the one of MXNet, in which epsilon is not
// corrected); Loshchilov and Hutter, 2019, algorithm 2 with eta_t alpha = lr.
#ifndef D2L_MULTI_ADAM_H_
#define D2L_MULTI_ADAM_H_

#include <math.h>

#include "common/tensor_list.h"

namespace d2l {
inline namespace D2L_ISA {

struct MultiAdamParams {
  int64_t num_weights = 1;
  RealList lrs = {nullptr, 0}, wds = {nullptr, 0}, steps = {nullptr, 1};
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, rescale_grad = 1;
  double clip_gradient = 0;  // 0: no limit
  bool bias_correction = true, decoupled = false;
};

// What holds for all elements of one array, in the type of computation:
// w = keep * w - step * m / (scale * sqrt(v) + epsilon)
template <class A>
struct AdamRates {
  A rescale, wd, bound, beta1, rest1, beta2, rest2, keep, step, scale, epsilon;
};

template <class A>
inline AdamRates<A> adam_rates(const MultiAdamParams& p, double lr, double wd, double t) {
  const double c1 = p.bias_correction ? 1 - pow(p.beta1, t) : 1;
  const double c2 = p.bias_correction ? 1 - pow(p.beta2, t) : 1;
  const double step = p.decoupled ? lr / c1 : lr * sqrt(c2) / c1;
  return {A(p.rescale_grad),
          p.decoupled ? A(0) : A(wd),
          p.clip_gradient > 0 ? A(p.clip_gradient) : A(INFINITY),
          A(p.beta1),
          A(1 - p.beta1),
          A(p.beta2),
          A(1 - p.beta2),
          p.decoupled ? A(1 - lr * wd) : A(1),
          A(step),
          p.decoupled ? A(1 / sqrt(c2)) : A(1),
          A(p.epsilon)};
}

// One element: *m and *v become the new ones, the new w is returned.
template <class A>
D2L_HOST_DEVICE inline A adam_element(const AdamRates<A>& r, A w, A grad, A* m, A* v) {
  const A g = clipped(r.rescale * grad + r.wd * w, r.bound);
  *m = r.beta1 * *m + r.rest1 * g;
  *v = r.beta2 * *v + r.rest2 * (g * g);
  return r.keep * w - r.step * *m / (r.scale * sqrt(*v) + r.epsilon);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <type_traits>

namespace d2l {
inline namespace D2L_ISA {

// One block.  rounded: for G other than T only.
template <class T, class G>
inline void adam_block(const AdamRates<Acc<T>>& rates, const G* g, int64_t n, T* w, T* m, T* v,
                       half* rounded) {
  typedef Acc<T> A;
  const AdamRates<A> r = rates;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A mi = load(m[i]), vi = load(v[i]);
    const A next = adam_element<A>(r, load(w[i]), load(g[i]), &mi, &vi);
    m[i] = store<T>(mi);
    v[i] = store<T>(vi);
    w[i] = store<T>(next);
    if constexpr (!std::is_same<T, G>::value) rounded[i] = store<half>(next);
  }
}

// workspace: 4 n + 1 numbers of 8 bytes, and n of AdamRates.
template <class T, class G>
inline void multi_adam_update(const MultiAdamParams& p, const Tensor* in, void* workspace) {
  typedef AdamRates<Acc<T>> Rates;
  const int64_t n = p.num_weights;
  int64_t* first = static_cast<int64_t*>(workspace);
  double *lrs = static_cast<double*>(workspace) + n + 1, *wds = lrs + n, *steps = wds + n;
  Rates* rates = reinterpret_cast<Rates*>(steps + n);
  read_list(p.lrs, 0, n, lrs);
  read_list(p.wds, 0, n, wds);
  read_list(p.steps, 0, n, steps);
  for (int64_t i = 0; i < n; ++i) {
    const bool same = i > 0 && lrs[i] == lrs[i - 1] && wds[i] == wds[i - 1] &&
                      steps[i] == steps[i - 1];  // mostly; pow is slow
    rates[i] = same ? rates[i - 1] : adam_rates<Acc<T>>(p, lrs[i], wds[i], steps[i]);
  }
  const Tensor *weights = in, *grads = in + n, *means = in + 2 * n, *variances = in + 3 * n,
               *rounded = in + 4 * n;
  for_each_block(weights, n, 12, first, [=](int64_t i, int64_t begin, int64_t end, int64_t) {
    adam_block<T, G>(rates[i], data<G>(grads[i]) + begin, end - begin, data<T>(weights[i]) + begin,
                     data<T>(means[i]) + begin, data<T>(variances[i]) + begin,
                     given(rounded[i]) ? data<half>(rounded[i]) + begin : nullptr);
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_MULTI_ADAM_H_
