// Which rows of a gradient are not zero.
//
// Padding has gradients of zero, and so have tokens without a loss: of BERT's last layer nine rows
// in ten.  Where products take most of the time they leave such rows out.
#ifndef D2L_COMMON_NONZERO_ROWS_H_
#define D2L_COMMON_NONZERO_ROWS_H_

#include "op.h"

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

constexpr int64_t kLargeProduct = 1 << 22;  // multiplications, from which on looking pays

template <class T>
inline bool is_zero(const T* row, int64_t cols) {
  constexpr int64_t kBlock = 64;
  for (int64_t c = 0; c < cols; c += kBlock) {
    const int64_t last = c + kBlock < cols ? c + kBlock : cols;
    int other = 0;
#pragma omp simd reduction(| : other)
    for (int64_t i = c; i < last; ++i) other |= load(row[i]) != 0;
    if (other) return false;
  }
  return true;
}

// Writes the numbers of rows that have a value other than zero, and returns how many there are.
// A row that has one is mostly known for it by its first values.
template <class T>
inline int64_t nonzero_rows(const T* x, int64_t rows, int64_t cols, int64_t* places) {
  int64_t count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    if (!is_zero(x + r * cols, cols)) places[count++] = r;
  }
  return count;
}

// Whether there are few enough to pay for moving them.
inline bool skips_rows(int64_t count, int64_t rows) { return count + rows / 8 < rows; }

// The first count rows of x go to their places among all, the others become zero.
template <class T>
inline void spread_rows(const int64_t* places, int64_t count, int64_t rows, int64_t cols, T* x) {
  int64_t r = rows - 1;
  for (int64_t i = count - 1; i >= 0; --i) {
    for (; r > places[i]; --r) memset(x + r * cols, 0, static_cast<size_t>(cols) * sizeof(T));
    if (i < r) memcpy(x + r * cols, x + i * cols, static_cast<size_t>(cols) * sizeof(T));
    --r;
  }
  for (; r >= 0; --r) memset(x + r * cols, 0, static_cast<size_t>(cols) * sizeof(T));
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_COMMON_NONZERO_ROWS_H_
