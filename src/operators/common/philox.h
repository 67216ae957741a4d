// Counter-based random numbers: Philox4x32 with 7 rounds (Salmon, Moraes, Dror and Shaw, 2011,
// section 4.3 and table 2), which passes BigCrush.
//
// A number depends on the seed and its place alone, a row and a column, so any thread can compute
// any of them, and backward computes the numbers of forward again instead of storing them.
//
// The seed comes as data, for an operator can see neither MXNet's random state nor whether it
// trains: d2l/ops/_random.py hands over kStateSize floats, dropout with p = 0.5 of ones.  In
// predict mode they are all 1, in train mode 0 or 2 each: the bits of a fresh seed.
#ifndef D2L_COMMON_PHILOX_H_
#define D2L_COMMON_PHILOX_H_

#include <string.h>

#include "tensor.h"

namespace d2l {

struct Seed {
  uint32_t key[2];
};

constexpr int kStateSize = 64;
constexpr int kPhiloxRounds = 7;
constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // steps of the key

inline namespace D2L_ISA {

// Random words come in blocks of kRandomBlock columns: four words from each of 16 counters.
constexpr int kRandomCounters = 16;
constexpr int kRandomBlock = 4 * kRandomCounters;

D2L_HOST_DEVICE inline bool is_training(const float* state) { return state[0] != 1.0f; }

D2L_HOST_DEVICE inline Seed seed_of(const float* state) {
  Seed seed = {{0, 0}};
  for (int i = 0; i < kStateSize; ++i) {
    if (state[i] > 1.0f) seed.key[i / 32] |= 1u << (i % 32);
  }
  return seed;
}

// One counter becomes four words.
D2L_HOST_DEVICE inline void philox(const Seed& seed, uint32_t* c) {
  uint32_t k0 = seed.key[0], k1 = seed.key[1];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxM0) * c[0];
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxM1) * c[2];
    const uint32_t c1 = c[1], c3 = c[3];
    c[0] = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c[1] = static_cast<uint32_t>(p1);
    c[2] = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c[3] = static_cast<uint32_t>(p0);
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
}

// The word of one place.
D2L_HOST_DEVICE inline uint32_t random_word(const Seed& seed, uint64_t row, uint32_t column) {
  const uint32_t block = column / kRandomBlock, place = column % kRandomBlock;
  uint32_t c[4] = {block * kRandomCounters + place % kRandomCounters, static_cast<uint32_t>(row),
                   static_cast<uint32_t>(row >> 32), 0};
  philox(seed, c);
  return c[place / kRandomCounters];
}

#if defined(__AVX512F__)

// Counters of 32 bits in lanes of 64, so that products stay in their lanes.  What stands in a
// lane's upper half has no part in anything: a product takes the lower halves alone.
typedef uint64_t WideWords __attribute__((vector_size(64)));

// The one builtin function among the kernels: GCC 12 makes three slow instructions of this product,
// and random_block() is 3 times as fast with the one that there is for it.
inline WideWords wide_product(WideWords a, WideWords b) {
  typedef int32_t Half __attribute__((vector_size(64)));
  typedef long long Whole __attribute__((vector_size(64)));
  return (WideWords)__builtin_ia32_pmuludq512_mask((Half)a, (Half)b, Whole{}, 0xff);
}

inline void philox(const Seed& seed, WideWords* c) {
  const WideWords zero = {}, m0 = zero + kPhiloxM0, m1 = zero + kPhiloxM1;
  uint32_t k0 = seed.key[0], k1 = seed.key[1];
  D2L_UNROLL(7)
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const WideWords p0 = wide_product(m0, c[0]), p1 = wide_product(m1, c[2]);
    c[0] = (p1 >> 32) ^ c[1] ^ (zero + k0);
    c[1] = p1;
    c[2] = (p0 >> 32) ^ c[3] ^ (zero + k1);
    c[3] = p0;
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
}

// The words of columns kRandomBlock * block .. + kRandomBlock - 1 of a row.
inline void random_block(const Seed& seed, uint64_t row, uint32_t block, uint32_t* words) {
  typedef uint32_t Words __attribute__((vector_size(32)));
  const WideWords zero = {}, lane = {0, 1, 2, 3, 4, 5, 6, 7};
  WideWords c[2][4];
  for (int half = 0; half < 2; ++half) {
    c[half][0] = zero + (block * kRandomCounters + 8 * half) + lane;
    c[half][1] = zero + row;
    c[half][2] = zero + (row >> 32);
    c[half][3] = zero;
    philox(seed, c[half]);
    for (int k = 0; k < 4; ++k) {
      const Words low = __builtin_convertvector(c[half][k], Words);
      memcpy(words + k * kRandomCounters + 8 * half, &low, sizeof low);
    }
  }
}

#else

// The words of columns kRandomBlock * block .. + kRandomBlock - 1 of a row: philox() of all
// counters at once, a step at a time, which is the form that becomes vector code.
inline void random_block(const Seed& seed, uint64_t row, uint32_t block, uint32_t* words) {
  constexpr int n = kRandomCounters;
  uint32_t c[4][n];
  for (int j = 0; j < n; ++j) {
    c[0][j] = block * n + static_cast<uint32_t>(j);
    c[1][j] = static_cast<uint32_t>(row);
    c[2][j] = static_cast<uint32_t>(row >> 32);
    c[3][j] = 0;
  }
  uint32_t k0 = seed.key[0], k1 = seed.key[1];
  D2L_UNROLL(7)
  for (int round = 0; round < kPhiloxRounds; ++round) {
    uint32_t high0[n], low0[n], high1[n], low1[n];
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      high0[j] = static_cast<uint32_t>((static_cast<uint64_t>(kPhiloxM0) * c[0][j]) >> 32);
      low0[j] = kPhiloxM0 * c[0][j];
    }
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      high1[j] = static_cast<uint32_t>((static_cast<uint64_t>(kPhiloxM1) * c[2][j]) >> 32);
      low1[j] = kPhiloxM1 * c[2][j];
    }
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      c[0][j] = high1[j] ^ c[1][j] ^ k0;
      c[1][j] = low1[j];
      c[2][j] = high0[j] ^ c[3][j] ^ k1;
      c[3][j] = low0[j];
    }
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  memcpy(words, c, sizeof c);
}

#endif  // __AVX512F__

// A word below this keeps its element: with probability 1 - p, for 0 <= p < 1.
D2L_HOST_DEVICE inline uint32_t keep_below(double p) {
  const double threshold = (1.0 - p) * 4294967296.0;
  return threshold >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(threshold);
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_PHILOX_H_
