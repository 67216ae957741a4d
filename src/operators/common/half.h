// IEEE float16 as storage: kernels load it to float, compute, and round once when they store.
#ifndef D2L_COMMON_HALF_H_
#define D2L_COMMON_HALF_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tensor.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace d2l {

struct half {
  uint16_t bits;
};

inline namespace D2L_ISA {

// The type in which values of T are summed.
template <class T>
struct Accumulator {
  typedef T type;
};
template <>
struct Accumulator<half> {
  typedef float type;
};
template <class T>
using Acc = typename Accumulator<T>::type;

D2L_HOST_DEVICE inline float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

D2L_HOST_DEVICE inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

D2L_HOST_DEVICE inline float load(float value) { return value; }
D2L_HOST_DEVICE inline double load(double value) { return value; }
D2L_HOST_DEVICE inline float load(half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  // Exponent and mantissa move to their place in a float; a multiplication by 2^112 then sets the
  // exponent's bias right and normalises subnormal numbers as well.  No branch, so it vectorises.
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  const uint32_t body = (value.bits & 0x7fffu) << 13;
  const uint32_t scaled = float_to_bits(bits_to_float(body) * bits_to_float(0x77800000u));
  // An exponent of 31 (infinity, NaN) has become 143 and must be 255.
  const uint32_t special = body >= 0x0f800000u ? 0x7f800000u : 0u;
  return bits_to_float(sign | scaled | special);
#endif
}

template <class T>
D2L_HOST_DEVICE inline T store(Acc<T> value);
template <>
D2L_HOST_DEVICE inline float store<float>(float value) {
  return value;
}
template <>
D2L_HOST_DEVICE inline double store<double>(double value) {
  return value;
}
// Round to nearest, ties to even.
template <>
D2L_HOST_DEVICE inline half store<half>(float value) {
  half result;
#if defined(__CUDA_ARCH__)
  result.bits = __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t body = bits & 0x7fffffffu;
  // Adding half of the last kept place, less one unless that place is odd, rounds to even.
  const uint32_t normal = (body - 0x38000000u + 0xfffu + ((body >> 13) & 1u)) >> 13;
  // Below 2^-14 the float adder rounds for us: 0.5 has its last place where half's smallest is.
  const uint32_t subnormal = float_to_bits(bits_to_float(body) + 0.5f) - 0x3f000000u;
  const uint32_t overflow = body > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t finite = body < 0x38800000u ? subnormal : normal;
  result.bits = static_cast<uint16_t>(sign | (body >= 0x477ff000u ? overflow : finite));
#endif
  return result;
}

// A double rounded once, also to float16, which is not what a way over the nearest float gives.
template <class T>
D2L_HOST_DEVICE inline T narrow(double value) {
  return static_cast<T>(value);
}
template <>
D2L_HOST_DEVICE inline half narrow<half>(double value) {
  const float nearest = static_cast<float>(value);
  uint32_t bits = float_to_bits(nearest);
  // What is between two floats gets the odd one of them, so that it is no tie of float16.
  if (nearest != value) bits = (fabs(nearest) > fabs(value) ? bits - 1 : bits) | 1u;
  return store<half>(bits_to_float(bits));
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_HALF_H_
