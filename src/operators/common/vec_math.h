// Elementary functions written so that loops over them become vector code.
#ifndef D2L_COMMON_VEC_MATH_H_
#define D2L_COMMON_VEC_MATH_H_

#include <math.h>

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

// The lesser of |a| and limit > 0; NaN becomes the limit.  As integers the two have the same
// order, and a minimum of integers is one instruction where that of floats, with its rule for NaN,
// is a comparison and a choice.
D2L_HOST_DEVICE inline float at_most(float a, float limit) {
  const int32_t x = static_cast<int32_t>(float_to_bits(a) & 0x7fffffffu);
  const int32_t y = static_cast<int32_t>(float_to_bits(limit));
  return bits_to_float(static_cast<uint32_t>(x < y ? x : y));
}

// e^x for x from -87.33654 to 88.72283; elsewhere, and for NaN, it is anything.
//
// x = n ln 2 + f with |f| <= ln(2) / 2; the polynomial is a Chebyshev fit of (e^f - 1 - f) / f^2.
// Adding 1.5 * 2^23 rounds to an integer, which also vectorises where there is no rounding
// instruction; n then stands in the last bits of the sum, from where it is added to the exponent.
D2L_HOST_DEVICE inline float exp_within(float x) {
  const float shift = 12582912.0f;
  const float shifted = x * 1.44269504f + shift;
  const float n = shifted - shift;
  // ln 2 in two parts: the first has trailing zeros, so n times it is exact.
  const float f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.989118e-4f;
  p = p * f + 1.3933821e-3f;
  p = p * f + 8.3333105e-3f;
  p = p * f + 4.1666463e-2f;
  p = p * f + 0.16666667f;
  p = p * f + 0.5f;
  const float value = p * (f * f) + f + 1.0f;
  return bits_to_float(float_to_bits(value) + (float_to_bits(shifted) << 23));
}

// e^x for float, within 1 ulp where the result is a normal number; below it is 0 (x < -87.33),
// above infinity (x > 88.72), and NaN for NaN.  Tested over all exponents.
D2L_HOST_DEVICE inline float fast_exp(float x) {
  const float y = x < -87.33654f ? 0.0f : exp_within(x);
  return x <= 88.72283f ? y : x + INFINITY;  // so that NaN remains
}

D2L_HOST_DEVICE inline double fast_exp(double x) { return exp(x); }

// tanh for float, within 1.5 ulp; -0 for -0 and NaN for NaN.  Tested over all exponents.
//
// Below 0.55 it is x + x^3 p(x^2), with p fitted for the least relative error (1.1e-9); above,
// 1 - 2 / (e^2x + 1), where the error of the fraction counts at most half.
D2L_HOST_DEVICE inline float fast_tanh(float x) {
  const float s = x * x;
  float p = -6.242849e-3f;
  p = p * s + 2.1050714e-2f;
  p = p * s - 5.3847548e-2f;
  p = p * s + 0.13332544f;
  p = p * s - 0.33333316f;
  const float small = p * s * x + x;
  const float large = 1.0f - 2.0f / (exp_within(2.0f * at_most(x, 10.0f)) + 1.0f);
  return fabsf(x) >= 0.55f ? copysignf(large, x) : small;
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

// The standard normal distribution at a point: P(X <= x) and the density.
template <class A>
struct Normal {
  A cdf, pdf;
};

// For float both have a relative error of at most 4e-7 for |x| < 2.5 (4 ulp; the cdf of x >= 0
// 2 ulp), which grows as x^2 does, to 4.4e-6 at 13.2; from there on they are 0 (and the cdf of
// x > 0 is 1).  For NaN as well, so a caller must bring x in once more.  Tested over all exponents.
//
// With t = |x| the tail is e^(-t^2 / 2) p(v) / (t + 3.75), v = t / (t + 3.75); p is fitted for the
// least relative error (1.7e-8).  In place of erf, whose 1 + erf(x) has no digits left for x < -5.
D2L_HOST_DEVICE inline Normal<float> fast_normal(float x) {
  const float t = at_most(x, 13.2f);
  const float r = 1.0f / (t + 3.75f);
  const float v = t * r;
  float p = 0.11283963f;
  p = p * v - 0.38658494f;
  p = p * v + 0.29640612f;
  p = p * v + 0.38894606f;
  p = p * v - 0.28637213f;
  p = p * v - 1.7046207f;
  p = p * v + 3.8385134f;
  p = p * v - 3.7351298f;
  p = p * v + 1.875f;
  const float e = t < 13.2f ? exp_within(-0.5f * t * t) : 0.0f;
  const float q = e * (p * r);
  return {x < 0.0f ? q : 1.0f - q, e * 0.39894228f};
}

D2L_HOST_DEVICE inline Normal<double> fast_normal(double x) {
  return {0.5 * erfc(x * -0.70710678118654752), exp(-0.5 * x * x) * 0.39894228040143268};
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_VEC_MATH_H_
