// Sums and maxima over i = 0 .. n - 1 that the compiler turns into vector code.
//
// A single running sum waits for its own last addition and must be added in order; here kLanes
// independent ones stay in registers.  The order depends on n and the instruction set alone.
#ifndef D2L_COMMON_REDUCE_H_
#define D2L_COMMON_REDUCE_H_

#include "tensor.h"

namespace d2l {
inline namespace D2L_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class A, int kLanes>
inline A add_lanes(A* lane) {
  for (int width = kLanes / 2; width; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

// The sum of term(i).
template <class A, class Term>
inline A sum(int64_t n, const Term& term) {
  constexpr int kLanes = 4 * kVectorBytes / static_cast<int>(sizeof(A));
  A lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) lane[j] += term(i + j);
  }
  for (int j = 0; i < n; ++i, ++j) lane[j] += term(i);
  return add_lanes<A, kLanes>(lane);
}

// Two sums at once: step(i, a, b) sets the i-th terms a of *first and b of *second.
template <class A, class Step>
inline void sum2(int64_t n, A* first, A* second, const Step& step) {
  constexpr int kLanes = 2 * kVectorBytes / static_cast<int>(sizeof(A));
  A lane1[kLanes] = {}, lane2[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) {
      A a, b;
      step(i + j, a, b);
      lane1[j] += a;
      lane2[j] += b;
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    A a, b;
    step(i, a, b);
    lane1[j] += a;
    lane2[j] += b;
  }
  *first = add_lanes<A, kLanes>(lane1);
  *second = add_lanes<A, kLanes>(lane2);
}

// The largest term, or lowest if there is none.  A NaN may or may not be passed over.
template <class A, class Term>
inline A maximum(int64_t n, A lowest, const Term& term) {
  constexpr int kLanes = 4 * kVectorBytes / static_cast<int>(sizeof(A));
  A lane[kLanes];
  for (int j = 0; j < kLanes; ++j) lane[j] = lowest;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) {
      const A t = term(i + j);
      lane[j] = t > lane[j] ? t : lane[j];
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    const A t = term(i);
    lane[j] = t > lane[j] ? t : lane[j];
  }
  for (int width = kLanes / 2; width; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] = lane[j + width] > lane[j] ? lane[j + width] : lane[j];
  }
  return lane[0];
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_REDUCE_H_
