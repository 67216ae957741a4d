// Softmax cross entropy of the first valid_len steps of every example, with label smoothing.
//
//   loss = sum over t < n of (log sum over j of exp(x_tj) - sum over j of q_tj x_tj) / steps
//   q_tj = (1 - s) [j = label_t] + s / vocab
//
// n = ceil(valid_len) clipped to 0 .. steps, a NaN counts as 0.  The steps after n are not read:
// pred and label may hold anything there.  A label outside 0 .. vocab - 1 counts as the nearest one
// in it (a kernel cannot fail, and MXNet's pick does the same), a fraction is dropped. Layout: x,
// dx are (batch * steps, vocab), row-major; label (batch * steps,); loss, dloss and valid_len
// (batch,). Saved for backward: m, the largest score of a row, and z, its sum of exp(x - m), in
// float32 (float64 for float64), 0 after n.  Both rather than their log-sum-exp, which would lose
// what m is too large for: at scores around 1000 the fourth digit of the gradient. Gradient: dx_tj
// = dloss / steps (exp(x_tj - m_t) / z_t - q_tj) for t < n, else 0.  label and valid_len have none.
// Source: Dive into Deep Learning, section 9.7; smoothing: Szegedy et al., 2016, section 7.
#ifndef D2L_MASKED_SOFTMAX_CE_H_
#define D2L_MASKED_SOFTMAX_CE_H_

#include "common/indices.h"
#include "common/lengths.h"
#include "common/rows.h"
#include "common/vec_math.h"

namespace d2l {
inline namespace D2L_ISA {

struct MaskedSoftmaxCEParams {
  double smoothing = 0;
};

// The arrays and sizes that forward and backward have in common.
template <class T>
struct MaskedSoftmaxCEInputs {
  const T* x;
  Indices label;
  Lengths valid_len;
  int64_t batch, steps, vocab;
  Acc<T> smoothing, share;  // share: of smoothing, for each class

  D2L_HOST_DEVICE int64_t rows() const { return batch * steps; }
  D2L_HOST_DEVICE bool valid(int64_t row) const {
    return row % steps < valid_length(valid_len, row, steps);
  }
};

template <class T>
inline MaskedSoftmaxCEInputs<T> masked_softmax_ce_inputs(const MaskedSoftmaxCEParams& params,
                                                         const Tensor* in) {
  const int64_t* dim = in[0].shape.dim;
  MaskedSoftmaxCEInputs<T> inputs;
  inputs.x = data<T>(in[0]);
  inputs.label = {in[1].data, in[1].dtype};
  inputs.valid_len = {in[2].data, in[2].dtype, dim[1]};
  inputs.batch = dim[0];
  inputs.steps = dim[1];
  inputs.vocab = dim[2];
  inputs.smoothing = static_cast<Acc<T>>(params.smoothing);
  inputs.share = static_cast<Acc<T>>(params.smoothing / static_cast<double>(dim[2]));
  return inputs;
}

// Forward needs a loss for each row.
inline int64_t masked_softmax_ce_workspace(const Tensor* in, bool backward) {
  return backward ? 0 : rows_of(in[0].shape) * acc_size(in[0].dtype);
}

// The loss of a row, of its sums of exp(x - m) and (where there is smoothing) of x - m.
template <class A>
D2L_HOST_DEVICE inline A masked_softmax_ce_loss(A z, A sum_x, A x_label, A m, A smoothing,
                                                A vocab) {
  const A loss = log(z) - (1 - smoothing) * (x_label - m);
  return smoothing > 0 ? loss - smoothing * (sum_x / vocab) : loss;
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "common/reduce.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T>
inline Acc<T> masked_softmax_ce_row(const T* x, int64_t vocab, int64_t label, Acc<T> smoothing,
                                    Acc<T>* maximum_out, Acc<T>* total_out) {
  typedef Acc<T> A;
  const A m = maximum<A>(vocab, -INFINITY, [=](int64_t i) { return load(x[i]); });
  A z, sum_x = 0;
  if (smoothing > 0) {
    sum2<A>(vocab, &z, &sum_x, [=](int64_t i, A& e, A& centered) {
      centered = load(x[i]) - m;
      e = fast_exp(centered);
    });
  } else {
    z = sum<A>(vocab, [=](int64_t i) { return fast_exp(load(x[i]) - m); });
  }
  *maximum_out = m;
  *total_out = z;
  return masked_softmax_ce_loss(z, sum_x, load(x[label]), m, smoothing, A(vocab));
}

// workspace: batch * steps losses.
template <class T>
inline void masked_softmax_ce_forward(const MaskedSoftmaxCEInputs<T>& in, T* loss, Acc<T>* m,
                                      Acc<T>* z, Acc<T>* workspace) {
  parallel_for(in.rows(), 16 * in.vocab, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      workspace[r] = m[r] = z[r] = 0;
      if (!in.valid(r)) continue;
      workspace[r] = masked_softmax_ce_row(in.x + r * in.vocab, in.vocab, in.label.at(r, in.vocab),
                                           in.smoothing, m + r, z + r);
    }
  });
  for (int64_t b = 0; b < in.batch; ++b) {
    double total = 0;
    for (int64_t t = 0; t < in.steps; ++t) total += workspace[b * in.steps + t];
    loss[b] = store<T>(static_cast<Acc<T>>(in.steps > 0 ? total / in.steps : 0));
  }
}

template <class T>
inline void masked_softmax_ce_backward(const MaskedSoftmaxCEInputs<T>& in, const T* dloss,
                                       const Acc<T>* m, const Acc<T>* z, T* dx) {
  typedef Acc<T> A;
  parallel_for(in.rows(), 16 * in.vocab, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* xr = in.x + r * in.vocab;
      T* dxr = dx + r * in.vocab;
      if (!in.valid(r)) {
        fill(dxr, in.vocab, store<T>(A(0)));
        continue;
      }
      const A g = load(dloss[r / in.steps]) / A(in.steps), top = m[r], scale = g / z[r];
      const A others = g * in.share;
#pragma omp simd
      for (int64_t i = 0; i < in.vocab; ++i) {
        dxr[i] = store<T>(fast_exp(load(xr[i]) - top) * scale - others);
      }
      const int64_t label = in.label.at(r, in.vocab);
      dxr[label] =
          store<T>(fast_exp(load(xr[label]) - top) * scale - others - g * (1 - in.smoothing));
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_MASKED_SOFTMAX_CE_H_
