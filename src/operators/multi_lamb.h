// LAMB on a list of weights, in place:
//
//   g = clip(rescale_grad * grad, -clip_gradient .. clip_gradient)
//   m = beta1 * m + (1 - beta1) * g,  v = beta2 * v + (1 - beta2) * g^2
//   u = m / c1 / (sqrt(v / c2) + epsilon) + wd * w
//   w = w - lr * phi(|w|) / |u| * u
//
// with c1 = 1 - beta1^t, c2 = 1 - beta2^t (both 1 without bias correction), | | the Euclidean norm
// over one array, phi limiting it to lower_bound .. upper_bound, and lr, wd and the step t those of
// each array.  Where |w| or |u| is 0, the quotient counts as 1.
// Mixed precision: w, m and v are float32, grad is float16, and w is also written rounded to
// float16.  Layout: lists of arrays, cut into blocks by common/tensor_list.h.  The squares are
// summed in double, block by block and then in order, so that threads do not matter; u is computed
// a second time rather than kept.  No gradient.
// Source: You et al., 2020, algorithm 2.
#ifndef D2L_MULTI_LAMB_H_
#define D2L_MULTI_LAMB_H_

#include <math.h>

#include "common/tensor_list.h"

namespace d2l {
inline namespace D2L_ISA {

struct MultiLambParams {
  int64_t num_weights = 1;
  RealList lrs = {nullptr, 0}, wds = {nullptr, 0}, steps = {nullptr, 1};
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6, rescale_grad = 1;
  double clip_gradient = 0, lower_bound = 0, upper_bound = 0;  // 0: no limit
  bool bias_correction = true;
};

// What holds for all elements of one array, in the type of computation.
template <class A>
struct LambRates {
  A rescale, bound, beta1, rest1, beta2, rest2, scale1, scale2, epsilon, wd;
};

template <class A>
inline LambRates<A> lamb_rates(const MultiLambParams& p, double wd, double t) {
  return {A(p.rescale_grad),
          p.clip_gradient > 0 ? A(p.clip_gradient) : A(INFINITY),
          A(p.beta1),
          A(1 - p.beta1),
          A(p.beta2),
          A(1 - p.beta2),
          p.bias_correction ? A(1 / (1 - pow(p.beta1, t))) : A(1),
          p.bias_correction ? A(1 / (1 - pow(p.beta2, t))) : A(1),
          A(p.epsilon),
          A(wd)};
}

template <class A>
D2L_HOST_DEVICE inline A lamb_update(const LambRates<A>& r, A w, A m, A v) {
  return m * r.scale1 / (sqrt(v * r.scale2) + r.epsilon) + r.wd * w;
}

// lr times the quotient of the norms, from their squares.
D2L_HOST_DEVICE inline double lamb_rate(const MultiLambParams& p, double lr, double w2, double u2) {
  double w = sqrt(w2);
  if (p.lower_bound > 0 && w < p.lower_bound) w = p.lower_bound;
  if (p.upper_bound > 0 && w > p.upper_bound) w = p.upper_bound;
  return w == 0 || u2 == 0 ? lr : lr * w / sqrt(u2);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <type_traits>

#include "common/reduce.h"

namespace d2l {
inline namespace D2L_ISA {

// The first half of one block: new m and v, and the sums of w^2 and u^2.
template <class T, class G>
inline void lamb_block_moments(const LambRates<Acc<T>>& rates, const G* g, int64_t n, const T* w,
                               T* m, T* v, double* squares) {
  typedef Acc<T> A;
  const LambRates<A> r = rates;
  sum2<double>(n, &squares[0], &squares[1], [=](int64_t i, double& w2, double& u2) {
    const A gi = clipped(r.rescale * A(load(g[i])), r.bound);
    m[i] = store<T>(r.beta1 * load(m[i]) + r.rest1 * gi);
    v[i] = store<T>(r.beta2 * load(v[i]) + r.rest2 * (gi * gi));
    const double u = lamb_update<A>(r, load(w[i]), load(m[i]), load(v[i])), wi = load(w[i]);
    w2 = wi * wi;
    u2 = u * u;
  });
}

// The second half.  rounded: for G other than T only.
template <class T, class G>
inline void lamb_block_weights(const LambRates<Acc<T>>& rates, Acc<T> rate, const T* m, const T* v,
                               int64_t n, T* w, half* rounded) {
  typedef Acc<T> A;
  const LambRates<A> r = rates;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A next = load(w[i]) - rate * lamb_update<A>(r, load(w[i]), load(m[i]), load(v[i]));
    w[i] = store<T>(next);
    if constexpr (!std::is_same<T, G>::value) rounded[i] = store<half>(next);
  }
}

// workspace: 4 n + 1 + 2 * (all blocks) numbers of 8 bytes, and n of LambRates.
template <class T, class G>
inline void multi_lamb_update(const MultiLambParams& p, const Tensor* in, void* workspace) {
  typedef LambRates<Acc<T>> Rates;
  const int64_t n = p.num_weights;
  int64_t* first = static_cast<int64_t*>(workspace);
  double *lrs = static_cast<double*>(workspace) + n + 1, *wds = lrs + n, *steps = wds + n;
  Rates* rates = reinterpret_cast<Rates*>(steps + n);
  double* squares = reinterpret_cast<double*>(rates + n);
  read_list(p.lrs, 0, n, lrs);
  read_list(p.wds, 0, n, wds);
  read_list(p.steps, 0, n, steps);
  for (int64_t i = 0; i < n; ++i) {
    const bool same = i > 0 && wds[i] == wds[i - 1] && steps[i] == steps[i - 1];
    rates[i] = same ? rates[i - 1] : lamb_rates<Acc<T>>(p, wds[i], steps[i]);
  }
  const Tensor *weights = in, *grads = in + n, *means = in + 2 * n, *variances = in + 3 * n,
               *rounded = in + 4 * n;
  for_each_block(weights, n, 16, first, [=](int64_t i, int64_t begin, int64_t end, int64_t block) {
    lamb_block_moments<T, G>(rates[i], data<G>(grads[i]) + begin, end - begin,
                             data<T>(weights[i]) + begin, data<T>(means[i]) + begin,
                             data<T>(variances[i]) + begin, squares + 2 * block);
  });
  for (int64_t i = 0; i < n; ++i) {
    double w2 = 0, u2 = 0;
    for (int64_t block = first[i]; block < first[i + 1]; ++block) {
      w2 += squares[2 * block];
      u2 += squares[2 * block + 1];
    }
    lrs[i] = lamb_rate(p, lrs[i], w2, u2);
  }
  for_each_block(weights, n, 12, first, [=](int64_t i, int64_t begin, int64_t end, int64_t) {
    lamb_block_weights<T, G>(rates[i], static_cast<Acc<T>>(lrs[i]), data<T>(means[i]) + begin,
                             data<T>(variances[i]) + begin, end - begin,
                             data<T>(weights[i]) + begin,
                             given(rounded[i]) ? data<half>(rounded[i]) + begin : nullptr);
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_MULTI_LAMB_H_
