// Elementary functions written so that loops over them become vector code.
#ifndef D2L_COMMON_VEC_MATH_H_
#define D2L_COMMON_VEC_MATH_H_

#include <math.h>

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

// e^x for float, within 1 ulp where the result is a normal number; below it is 0 (x < -87.33),
// above infinity (x > 88.72), and NaN for NaN.  Tested over all exponents.
//
// x = n ln 2 + f with |f| <= ln(2) / 2; the polynomial is a Chebyshev fit of (e^f - 1 - f) / f^2.
// Adding and subtracting 1.5 * 2^23 rounds to an integer in two additions, which also vectorises
// where there is no rounding instruction.
D2L_HOST_DEVICE inline float fast_exp(float x) {
  const float shift = 12582912.0f;
  const float clamped = x < -87.33654f ? -87.33654f : (x > 88.72283f ? 88.72283f : x);
  const float shifted = clamped * 1.44269504f + shift;
  const float n = shifted - shift;
  // ln 2 in two parts: the first has trailing zeros, so n times it is exact.
  const float f = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.989118e-4f;
  p = p * f + 1.3933821e-3f;
  p = p * f + 8.3333105e-3f;
  p = p * f + 4.1666463e-2f;
  p = p * f + 0.16666667f;
  p = p * f + 0.5f;
  const float value = p * (f * f) + f + 1.0f;
  // 2^n in two factors: n reaches 128, and 2^128 is not a float.
  const uint32_t bits = float_to_bits(shifted) - 0x4b400000u;
  const int32_t half_n = static_cast<int32_t>(bits) >> 1;
  const int32_t rest_n = static_cast<int32_t>(bits) - half_n;
  const float scaled = value * bits_to_float(static_cast<uint32_t>(half_n + 127) << 23) *
                       bits_to_float(static_cast<uint32_t>(rest_n + 127) << 23);
  const float low = x < -87.33654f ? 0.0f : scaled;
  return x > 88.72283f ? INFINITY : low;
}

D2L_HOST_DEVICE inline double fast_exp(double x) { return exp(x); }

// tanh for float, within 1.5 ulp; -0 for -0 and NaN for NaN.  Tested over all exponents.
//
// Below 0.55 it is x + x^3 p(x^2), with p fitted for the least relative error (1.1e-9); above,
// 1 - 2 / (e^2x + 1), where the error of the fraction counts at most half.
D2L_HOST_DEVICE inline float fast_tanh(float x) {
  const uint32_t sign = float_to_bits(x) & 0x80000000u;
  const float a = bits_to_float(float_to_bits(x) ^ sign);
  const float s = x * x;
  float p = -6.242849e-3f;
  p = p * s + 2.1050714e-2f;
  p = p * s - 5.3847548e-2f;
  p = p * s + 0.13332544f;
  p = p * s - 0.33333316f;
  const float small = p * s * a + a;
  const float clamped = a > 10.0f ? 10.0f : a;  // tanh(10) is 1
  const float large = 1.0f - 2.0f / (fast_exp(2.0f * clamped) + 1.0f);
  return bits_to_float(float_to_bits(a < 0.55f ? small : large) | sign);
}

D2L_HOST_DEVICE inline double fast_tanh(double x) { return tanh(x); }

// 1 / (1 + e^-x), for float within 2 ulp where the result is a normal number; below it is 0
// (x < -87.33).  NaN for NaN.  Tested over all exponents.
//
// With e = e^-|x| nothing overflows and e / (1 + e) keeps the digits of small results.  The last
// line takes back the rounding of 1 + e, where it counts most: for e near 0.
template <class A>
D2L_HOST_DEVICE inline A fast_sigmoid(A x) {
  const A e = fast_exp(x < 0 ? x : -x);
  const A total = 1 + e;
  const A y = (x < 0 ? e : A(1)) / total;
  return y - y * (e - (total - 1));
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_VEC_MATH_H_
