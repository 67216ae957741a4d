// Inverted dropout (Srivastava et al., 2014), as a factor for each element: 0 with probability p,
// else 1 / (1 - p).  Which of them it is depends on the seed and on the element's place alone, a
// row and a column (see philox.h).
//
// An element is kept if its random number of 32 bits is below (1 - p) * 2^32.  Upper and lower half
// of that number come from different words: the upper half decides, except once in 65536 times, and
// so one word of Philox serves two elements.
#ifndef D2L_COMMON_DROPOUT_H_
#define D2L_COMMON_DROPOUT_H_

#include "op.h"
#include "philox.h"

namespace d2l {

struct Dropout {
  bool active;  // train mode, and p > 0
  Seed seed;
  uint32_t keep;  // numbers below it keep their element
  double scale;   // 1 / (1 - p)
};

// Columns i and i + kRandomBlock of a block have the two halves of one word.
constexpr int kDropoutBlock = 2 * kRandomBlock;

inline namespace D2L_ISA {

// state: what d2l/ops/_random.py hands over.
D2L_HOST_DEVICE inline Dropout dropout_of(const float* state, double p) {
  if (p == 0 || !is_training(state)) return {false, {{0, 0}}, 0, 1};
  return {true, seed_of(state), keep_below(p), 1 / (1 - p)};
}

// Whether a place keeps its element, given the upper half of its number.
D2L_HOST_DEVICE inline bool keeps(const Dropout& dropout, uint32_t upper, uint64_t row,
                                  uint32_t column) {
  const uint32_t border = dropout.keep >> 16;
  if (upper != border) return upper < border;
  const uint32_t lower = random_word(dropout.seed, row, column | 0x80000000u) & 0xffffu;
  return lower < (dropout.keep & 0xffffu);
}

// The factor of one place.
template <class A>
D2L_HOST_DEVICE inline A dropout_factor(const Dropout& dropout, uint64_t row, uint32_t column) {
  if (!dropout.active) return A(1);
  const uint32_t block = column / kDropoutBlock, place = column % kDropoutBlock;
  const uint32_t word = random_word(dropout.seed, row, block * kRandomBlock + place % kRandomBlock);
  const uint32_t upper = place < kRandomBlock ? word & 0xffffu : word >> 16;
  return keeps(dropout, upper, row, column) ? static_cast<A>(dropout.scale) : A(0);
}

// What is dropped is 0, even if value is infinite or NaN.
template <class A>
D2L_HOST_DEVICE inline A dropped(A value, A factor) {
  return factor > A(0) ? value * factor : A(0);
}

// The rules of the input seed.
inline void expect_seed_dtype(DType* dtype, const char* op, Error* error) {
  if (*dtype == DType::kUnknown) *dtype = DType::kFloat32;
  if (*dtype != DType::kFloat32) {
    fail(error, "%s: seed must have dtype float32, got %s", op, name_of(*dtype));
  }
}

inline void expect_seed_shape(Shape* shape, const char* op, Error* error) {
  expect_shape(shape, {1, {kStateSize}}, op, "seed", error);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

// The factors of a block of kDropoutBlock columns: dropout_factor() of them all.
template <class A>
inline void dropout_block(const Dropout& dropout, uint64_t row, uint32_t block, A* factor) {
  constexpr int n = kRandomBlock;
  const uint32_t border = dropout.keep >> 16;
  const A scale = static_cast<A>(dropout.scale);
  if (!dropout.active) {
    for (int j = 0; j < 2 * n; ++j) factor[j] = A(1);
    return;
  }
  uint32_t words[n], undecided = 0;
  random_block(dropout.seed, row, block, words);
#pragma omp simd reduction(| : undecided)
  for (int j = 0; j < n; ++j) {
    const uint32_t first = words[j] & 0xffffu, second = words[j] >> 16;
    factor[j] = first < border ? scale : A(0);
    factor[n + j] = second < border ? scale : A(0);
    undecided |= (first == border) | (second == border);
  }
  if (!undecided) return;
  for (int j = 0; j < 2 * n; ++j) {
    factor[j] = dropout_factor<A>(dropout, row, block * kDropoutBlock + j);
  }
}

// Calls use(i, factor) for the columns i = 0 .. cols - 1 of a row.  The loop over a whole block
// becomes vector code: with the factors in an array, the compiler cannot turn the choice of a
// factor and what use() makes of it into one branch.
template <class A, class Use>
inline void for_each_factor(const Dropout& dropout, uint64_t row, int64_t cols, const Use& use) {
  for (int64_t begin = 0; begin < cols; begin += kDropoutBlock) {
    A factor[kDropoutBlock];
    dropout_block(dropout, row, static_cast<uint32_t>(begin / kDropoutBlock), factor);
    if (begin + kDropoutBlock <= cols) {
#pragma omp simd
      for (int j = 0; j < kDropoutBlock; ++j) use(begin + j, factor[j]);
    } else {
      for (int j = 0; j < cols - begin; ++j) use(begin + j, factor[j]);
    }
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_COMMON_DROPOUT_H_
