// Elementary functions and activations, written once for scalars (CUDA, tests) and SIMD vectors (CPU).
// A Real is float, double or a vector of them; Integer is the signed integer of the same shape.
#pragma once

#include "host_device.h"

#include <stdint.h>

namespace gg {

template <class Real>
struct RealTraits;  // specialised for vectors in simd.h
template <class Number, class Bits>
struct ScalarTraits {
  using Scalar = Number;
  using Integer = Bits;
  static GG_MEMBER Number reciprocal(Number x) { return Number(1) / x; }
  // The bound, or x if that is further; a NaN stays a NaN.
  static GG_MEMBER Number at_least(Number x, Number bound) { return x < bound ? bound : x; }
  static GG_MEMBER Number at_most(Number x, Number bound) { return x > bound ? bound : x; }
  // A sum that no product is fused into. The compiler does so for one width of a vector or pack and not for another,
  // and a column's bits must not depend on where it stands: vmap moves columns about when batch mates change.
  static GG_MEMBER Number add_apart(Number a, Number b) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(Number) == 4) return __fadd_rn(a, b);
    return __dadd_rn(a, b);
#else
    return a + b;
#endif
  }
};
template <>
struct RealTraits<float> : ScalarTraits<float, int32_t> {};
template <>
struct RealTraits<double> : ScalarTraits<double, int64_t> {};

template <class Real>
GG_HD Real constant(double value) {
  using Scalar = typename RealTraits<Real>::Scalar;
  return Real{} + static_cast<Scalar>(value);
}

template <class Real, int N>
GG_HD Real horner(Real x, const double (&coefficients)[N]) {
  using Scalar = typename RealTraits<Real>::Scalar;
  Real sum = constant<Real>(coefficients[0]);
  GG_UNROLL
  for (int k = 1; k < N; ++k) sum = sum * x + static_cast<Scalar>(coefficients[k]);
  return sum;
}

// Beyond these exp(x) is no longer a normal number, and the parts below would not hold.
template <class Scalar>
constexpr Scalar kExpLow = sizeof(Scalar) == 4 ? Scalar(-87.0) : Scalar(-708.0);
template <class Scalar>
constexpr Scalar kExpHigh = sizeof(Scalar) == 4 ? Scalar(88.0) : Scalar(709.0);

// exp(x) - 1 as a pair (scale, rest): exp(x) = scale * (1 + rest), scale a power of two, |rest| < 0.42, for x from
// -kExpHigh (where scale is 0) to kExpHigh.
template <class Real>
GG_HD void exp_parts_within(Real x, Real& scale, Real& rest) {
  using Scalar = typename RealTraits<Real>::Scalar;
  using Integer = typename RealTraits<Real>::Integer;
  constexpr bool single = sizeof(Scalar) == 4;
  constexpr int mantissa = single ? 23 : 52;
  // Adding 1.5 * 2^mantissa leaves round(y) in the low bits of the sum.
  constexpr Scalar magic = single ? Scalar(12582912.0) : Scalar(6755399441055744.0);
  constexpr Scalar log2e = Scalar(1.4426950408889634074);
  constexpr Scalar ln2_high = single ? Scalar(0.693359375) : Scalar(0.693145751953125);
  constexpr Scalar ln2_low = single ? Scalar(-2.12194440054690583e-4) : Scalar(1.42860682030941723212e-6);
  Real shifted = x * log2e + magic;
  Real n = shifted - magic;
  Real r = x - n * ln2_high - n * ln2_low;
  if constexpr (single) {
    const double c[] = {1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
                        4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1};
    rest = horner(r, c) * r * r + r;
  } else {
    const double c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                        1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
    rest = horner(r, c) * r * r + r;
  }
  constexpr Integer zero{};
  Integer exponent = bit_cast<Integer>(shifted) - (bit_cast<Integer>(constant<Real>(magic)) + zero);
  constexpr int bias = single ? 127 : 1023;
  scale = bit_cast<Real>((exponent + bias) << mantissa);
}

// The same for any x, by way of the nearest that is not beyond.
template <class Real>
GG_HD void exp_parts(Real x, Real& scale, Real& rest) {
  using Scalar = typename RealTraits<Real>::Scalar;
  x = RealTraits<Real>::at_least(x, constant<Real>(kExpLow<Scalar>));
  exp_parts_within(RealTraits<Real>::at_most(x, constant<Real>(kExpHigh<Scalar>)), scale, rest);
}

template <class Real>
GG_HD Real exp_(Real x) {
  Real scale, rest;
  exp_parts(x, scale, rest);
  Real value = scale * rest + scale;
  // Past the clamp exp(x) is 0 or inf, and a NaN stays a NaN.
  using Scalar = typename RealTraits<Real>::Scalar;
  Real past = x * constant<Real>(sizeof(Scalar) == 4 ? 3e38 : 1e308);
  value = x > constant<Real>(kExpHigh<Scalar>) ? past * past : value;
  value = x < constant<Real>(kExpLow<Scalar>) ? constant<Real>(0) : value;
  return x == x ? value : x;
}

// The least x that a sigmoid, times x or not, can be told from 0 at.
template <class Real>
GG_HD Real sigmoid_floor(Real x) {
  return RealTraits<Real>::at_least(x, constant<Real>(-kExpHigh<typename RealTraits<Real>::Scalar>));
}

// 1 / (1 + exp(-x)) for an x above that floor; a NaN passes through.
template <class Real>
GG_HD Real sigmoid(Real x) {
  Real scale, rest;
  exp_parts_within(-RealTraits<Real>::at_most(x, constant<Real>(kExpHigh<typename RealTraits<Real>::Scalar>)), scale,
                   rest);
  return RealTraits<Real>::reciprocal(constant<Real>(1) + (scale * rest + scale));
}

template <class Real>
GG_HD Real tanh_(Real x) {
  Real magnitude = x < constant<Real>(0) ? -x : x;
  Real scale, rest;
  exp_parts(constant<Real>(-2) * magnitude, scale, rest);
  Real minus_expm1 = (constant<Real>(1) - scale) - scale * rest;
  Real value = minus_expm1 / (constant<Real>(2) - minus_expm1);
  value = x < constant<Real>(0) ? -value : value;
  return x == x ? value : x;
}

// log(1 + x) for x in [0, 1], to a few ulp of itself.
template <class Real>
GG_HD Real log1p_(Real x) {
  // Near 1 as log 2 + log1p((x - 1) / 2), so that 2 atanh(v / (2 + v)) is a short series.
  const Real one = constant<Real>(1), zero = constant<Real>(0);
  const Real half = x * constant<Real>(0.5) - constant<Real>(0.5);
  const Real v = x > constant<Real>(0.41421356237309503) ? half : x;
  const Real offset = x > constant<Real>(0.41421356237309503) ? constant<Real>(0.69314718055994531) : zero;
  const Real s = v / (constant<Real>(2) + v), square = s * s;
  Real series;
  if constexpr (sizeof(typename RealTraits<Real>::Scalar) == 4) {
    const double c[] = {1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3};
    series = horner(square, c);
  } else {
    const double c[] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                        1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};
    series = horner(square, c);
  }
  return offset + constant<Real>(2) * s * (one + square * series);
}

template <class Real>
GG_HD Real softplus(Real x) {
  const Real zero = constant<Real>(0), minus_magnitude = x < zero ? x : -x;
  return (x < zero ? zero : x) + log1p_(exp_(minus_magnitude));
}

enum class Activation : int { silu = 0, tanh = 1, relu = 2, softplus = 3 };

// The Order-th derivative of the activation.
template <Activation kind, int Order, class Real>
GG_HD Real activation(Real x) {
  static_assert(Order >= 0 && Order <= 3, "derivatives up to the third");
  const Real one = constant<Real>(1), two = constant<Real>(2);
  if constexpr (kind == Activation::silu) {
    x = sigmoid_floor(x);
    Real s = sigmoid(x);
    if constexpr (Order == 0) return x * s;
    Real u = s * (one - s);
    if constexpr (Order == 1) return s + x * u;
    Real d = one - two * s;
    if constexpr (Order == 2) return two * u + x * (u * d);
    return constant<Real>(3) * (u * d) + x * (u * (d * d - two * u));
  } else if constexpr (kind == Activation::tanh) {
    Real t = tanh_(x);
    if constexpr (Order == 0) return t;
    Real u = one - t * t;
    if constexpr (Order == 1) return u;
    if constexpr (Order == 2) return -two * t * u;
    return u * (constant<Real>(6) * t * t - two);
  } else if constexpr (kind == Activation::relu) {
    // 0 at 0 and in every slope there; a NaN is no smaller than 0 and stays.
    const Real zero = constant<Real>(0);
    if constexpr (Order == 0) return x <= zero ? zero : x;
    if constexpr (Order == 1) return x <= zero ? zero : one;
    return zero;
  } else {
    if constexpr (Order == 0) return softplus(x);
    const Real floor = sigmoid_floor(x);
    Real s = sigmoid(floor);
    s = x < floor ? constant<Real>(0) : s;
    if constexpr (Order == 1) return s;
    Real u = s * (one - s);
    if constexpr (Order == 2) return u;
    return u * (one - two * s);
  }
}

}  // namespace gg
