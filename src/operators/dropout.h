// Dropout (Srivastava et al., 2014; Dive into Deep Learning, section 4.6).
//
//   y_i = x_i / (1 - p) with probability 1 - p, else 0, in train mode;  y = x in predict mode
//
// What is dropped is exactly 0, whatever x_i is (infinity and NaN too).
// Layout: any; element i has the random word of row i / kDropoutRow and column i % kDropoutRow, so
// that the mask depends on the seed alone and not on shape, dtype or threads.
// Saved for backward: nothing; the mask is computed again.
// Gradient: dx_i = dy_i / (1 - p) where x_i was kept, else 0.  seed has no gradient.
#ifndef D2L_DROPOUT_H_
#define D2L_DROPOUT_H_

#include "common/dropout.h"

namespace d2l {

constexpr int kDropoutRow = 4096;

inline namespace D2L_ISA {

struct DropoutParams {
  double p = 0.5;
};

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <string.h>

#include "common/parallel.h"

namespace d2l {
inline namespace D2L_ISA {

// Forward, and backward with dy and dx in place of x and y.
template <class T>
inline void drop_out(const T* x, const Dropout& dropout, int64_t n, T* y) {
  typedef Acc<T> A;
  const int64_t rows = (n + kDropoutRow - 1) / kDropoutRow;
  parallel_for(rows, 2 * kDropoutRow, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = r * kDropoutRow, left = n - first;
      const int64_t cols = left < kDropoutRow ? left : kDropoutRow;
      const T* xr = x + first;
      T* yr = y + first;
      if (!dropout.active) {
        memcpy(yr, xr, cols * sizeof(T));
        continue;
      }
      for_each_factor<A>(dropout, r, cols, [=](int64_t i, A factor) {
        yr[i] = store<T>(dropped(load(xr[i]), factor));
      });
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_DROPOUT_H_
