// A residual connection with layer normalization over the last axis (Vaswani et al., 2017, section
// 5.4; Dive into Deep Learning, section 10.3), in one pass each way.
//
//   out = layer_norm(z),  z = X + dropout(Y)
//
// layer_norm as in layer_norm.h, dropout as in common/dropout.h, of place (row, column); z is never
// written to memory.
// Layout: X, Y, out and their gradients are (rows, cols), row-major; gamma, beta (cols,); mean,
// rstd (rows,). Saved for backward: mean and rstd of z, in float32 (float64 for float64).  The mask
// is drawn again. Gradient: dX = dz, the gradient of layer_norm at z; dY = dz / (1 - p) where Y was
// kept, else 0; dgamma and dbeta are those of layer_norm.  seed has no gradient.
#ifndef D2L_ADD_NORM_H_
#define D2L_ADD_NORM_H_

#include "common/dropout.h"
#include "layer_norm.h"

namespace d2l {
inline namespace D2L_ISA {

struct AddNormParams {
  double p = 0;
  double eps = 1e-5;
};

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

// Row r of z, and the factors of Y in it if anything is dropped.
template <class T>
inline void add_norm_sum(const T* x, const T* y, const Dropout& dropout, int64_t r, int64_t cols,
                         Acc<T>* z, Acc<T>* factor) {
  typedef Acc<T> A;
  if (!dropout.active) {
#pragma omp simd
    for (int64_t i = 0; i < cols; ++i) z[i] = load(x[i]) + load(y[i]);
    return;
  }
  for_each_factor<A>(dropout, r, cols, [=](int64_t i, A f) {
    z[i] = load(x[i]) + dropped(load(y[i]), f);
    factor[i] = f;
  });
}

// workspace: row_blocks(rows) * 2 * cols values.
template <class T>
inline void add_norm_forward(const T* x, const T* y, const T* gamma, const T* beta,
                             const Dropout& dropout, int64_t rows, int64_t cols, Acc<T> eps, T* out,
                             Acc<T>* mean, Acc<T>* rstd, Acc<T>* workspace) {
  const int64_t block = rows_per_block(rows);
  const bool streamed = worth_streaming<T>(rows * cols);
  parallel_for(row_blocks(rows), block * 6 * cols, [=](int64_t begin, int64_t end) {
    Acc<T>*z = workspace + begin * 2 * cols, *factor = z + cols;
    const int64_t last = end * block < rows ? end * block : rows;
    for (int64_t r = begin * block; r < last; ++r) {
      add_norm_sum(x + r * cols, y + r * cols, dropout, r, cols, z, factor);
      layer_norm_forward_row(z, gamma, beta, cols, eps, streamed, out + r * cols, mean + r,
                             rstd + r);
    }
  });
}

// workspace: row_blocks(rows) * 4 * cols values.
template <class T>
inline void add_norm_backward(const T* dout, const T* x, const T* y, const T* gamma,
                              const Dropout& dropout, const Acc<T>* mean, const Acc<T>* rstd,
                              int64_t rows, int64_t cols, T* dx, T* dy, T* dgamma, T* dbeta,
                              Acc<T>* workspace) {
  typedef Acc<T> A;
  A* const space = workspace + row_blocks(rows) * 2 * cols;
  const bool streamed = worth_streaming<T>(rows * cols);
  sum_over_rows<A>(
      rows, cols, 2, 8 * cols, workspace,
      [=](int64_t r, A* sums) {
        A *z = space + r / rows_per_block(rows) * 2 * cols, *factor = z + cols;
        T *dxr = dx + r * cols, *dyr = dy + r * cols;
        add_norm_sum(x + r * cols, y + r * cols, dropout, r, cols, z, factor);
        layer_norm_backward_row(dout + r * cols, z, gamma, cols, mean[r], rstd[r], false, z, sums,
                                sums + cols);
        store_row(cols, dxr, streamed, [=](int64_t i) { return z[i]; });
        if (dropout.active) {
          store_row(cols, dyr, streamed, [=](int64_t i) { return dropped(z[i], factor[i]); });
        } else {
          store_row(cols, dyr, streamed, [=](int64_t i) { return z[i]; });
        }
      },
      [=](int64_t i, A total) { (i < cols ? dgamma[i] : dbeta[i - cols]) = store<T>(total); });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_ADD_NORM_H_
