// Products of the matrices of two batches.
//
//   out[n] = A B,  A = a[n] or, with transpose_a, its transpose,  B = b[n] or, with transpose_b,
//   ...
//
// Layout: a (batch, rows, depth), with transpose_a (batch, depth, rows); b (batch, depth, cols),
// with transpose_b (batch, cols, depth); out (batch, rows, cols); all row-major.  Nothing is saved.
// Gradient: dA = dout B^T, dB = A^T dout; the gradient of an argument that is transposed is that
// product the other way round.  So all of it is products of common/products.h.
#ifndef D2L_BATCH_DOT_H_
#define D2L_BATCH_DOT_H_

#include "common/products.h"

namespace d2l {
inline namespace D2L_ISA {

struct BatchDotParams {
  bool transpose_a = false;
  bool transpose_b = false;
};

template <class T>
inline Factor<T> factor_of(const Tensor& tensor, bool transposed) {
  const int64_t *dim = tensor.shape.dim, rows = dim[transposed ? 2 : 1];
  return {data<T>(tensor), rows, dim[transposed ? 1 : 2], transposed};
}

// Both gradients as products: calls multiply(left, right, gradient), which returns 0 or an error.
template <class T, class Multiply>
inline int batch_dot_gradients(const BatchDotParams& params, const Factor<T>& a, const Factor<T>& b,
                               const T* grad_out, T* da, T* db, const Multiply& multiply) {
  const Factor<T> dout = {grad_out, a.rows, b.cols, false};
  const int status =
      params.transpose_a ? multiply(b, dout.flipped(), da) : multiply(dout, b.flipped(), da);
  if (status) return status;
  return params.transpose_b ? multiply(dout.flipped(), a, db) : multiply(a.flipped(), dout, db);
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_BATCH_DOT_H_
