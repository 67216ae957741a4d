// Scales a list of gradients, in place, so that their common norm is at most theta:
//
//   norm = sqrt(sum of g^2 over all elements of all arrays),
//   g = g * min(1, theta / norm) / divisor
//
// If the norm is infinite or NaN the factor is 1 (over the divisor).  Nothing is written where the
// factor is 1.  The arrays may be of different dtypes.  Output: the norm.
// Layout: a list of arrays, cut into blocks by common/tensor_list.h.  The squares are computed and
// summed in double, where those of float32 do not overflow, block by block and then in order, so
// that threads do not matter.  No gradient.
// Source: Pascanu, Mikolov and Bengio, 2013, section 3.2; Dive into Deep Learning, section 8.5.
#ifndef D2L_GLOBAL_NORM_CLIP_H_
#define D2L_GLOBAL_NORM_CLIP_H_

#include <math.h>

#include "common/tensor_list.h"

namespace d2l {
inline namespace D2L_ISA {

struct GlobalNormClipParams {
  int64_t num_weights = 1;
  double theta = 1;
};

D2L_HOST_DEVICE inline double clipping_factor(double norm, double theta) {
  return norm > theta && norm <= 1.7976931348623157e308 ? theta / norm : 1;
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "common/reduce.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T>
inline double sum_of_squares(const T* g, int64_t n) {
  return sum<double>(n, [=](int64_t i) {
    const double value = load(g[i]);
    return value * value;
  });
}

template <class T>
inline void scale_block(T* g, int64_t n, Acc<T> factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) g[i] = store<T>(load(g[i]) * factor);
}

// workspace: n + 1 + (all blocks) numbers of 8 bytes.  divisor: null for 1.
inline void global_norm_clip(const GlobalNormClipParams& p, const Tensor* grads,
                             const double* divisor, double* norm, void* workspace) {
  const int64_t n = p.num_weights;
  int64_t* first = static_cast<int64_t*>(workspace);
  double* squares = static_cast<double*>(workspace) + n + 1;
  for_each_block(grads, n, 2, first, [=](int64_t i, int64_t begin, int64_t end, int64_t block) {
    const Tensor& g = grads[i];
    switch (g.dtype) {
      case DType::kFloat32:
        squares[block] = sum_of_squares(data<float>(g) + begin, end - begin);
        break;
      case DType::kFloat64:
        squares[block] = sum_of_squares(data<double>(g) + begin, end - begin);
        break;
      default: squares[block] = sum_of_squares(data<half>(g) + begin, end - begin); break;
    }
  });
  double total = 0;
  for (int64_t block = 0; block < first[n]; ++block) total += squares[block];
  *norm = sqrt(total);
  const double factor = clipping_factor(*norm, p.theta) / (divisor ? *divisor : 1);
  if (factor == 1) return;
  for_each_block(grads, n, 1, first, [=](int64_t i, int64_t begin, int64_t end, int64_t) {
    const Tensor& g = grads[i];
    switch (g.dtype) {
      case DType::kFloat32:
        scale_block(data<float>(g) + begin, end - begin, static_cast<float>(factor));
        break;
      case DType::kFloat64: scale_block(data<double>(g) + begin, end - begin, factor); break;
      default: scale_block(data<half>(g) + begin, end - begin, static_cast<float>(factor)); break;
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_GLOBAL_NORM_CLIP_H_
