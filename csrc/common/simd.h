// SIMD vectors for the CPU kernels. This header is compiled once per instruction set (GG_ISA names it);
// everything here has internal linkage or lives in that namespace, so no set's code can leak into another's.
#pragma once

#include "bfloat16.h"
#include "math.h"

#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef GG_ISA
#define GG_ISA baseline
#endif
#if defined(__AVX512F__)
#define GG_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define GG_VECTOR_BYTES 32
#else
#define GG_VECTOR_BYTES 16
#endif

namespace gg {

typedef float floatv __attribute__((vector_size(GG_VECTOR_BYTES)));
typedef int32_t int32v __attribute__((vector_size(GG_VECTOR_BYTES)));
typedef uint32_t uint32v __attribute__((vector_size(GG_VECTOR_BYTES)));
typedef double doublev __attribute__((vector_size(GG_VECTOR_BYTES)));
typedef int64_t int64v __attribute__((vector_size(GG_VECTOR_BYTES)));

// A value that no later sum may be fused with, see ScalarTraits::add_apart.
template <class Vector>
GG_HD Vector rounded(Vector value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}

template <class Vector, class Number, class Bits>
struct VectorTraits {
  using Scalar = Number;
  using Integer = Bits;
  static GG_MEMBER Vector reciprocal(Vector x) { return Scalar(1) / x; }
  static GG_MEMBER Vector at_least(Vector x, Vector bound) { return x < bound ? bound : x; }
  static GG_MEMBER Vector at_most(Vector x, Vector bound) { return x > bound ? bound : x; }
  static GG_MEMBER Vector add_apart(Vector a, Vector b) { return rounded(a) + rounded(b); }
};
template <>
struct RealTraits<doublev> : VectorTraits<doublev, double, int64v> {};
#if defined(__AVX512F__)
template <>
struct RealTraits<floatv> {
  using Scalar = float;
  using Integer = int32v;
  // 14 bits and one step of Newton's: as near as a division and a third of its time.
  static GG_MEMBER floatv reciprocal(floatv x) {
    const floatv guess = bit_cast<floatv>(_mm512_rcp14_ps(bit_cast<__m512>(x)));
    return guess + guess * (1.0f - x * guess);
  }
  static GG_MEMBER floatv add_apart(floatv a, floatv b) { return rounded(a) + rounded(b); }
  // The instructions return their second operand if one is a NaN.
  static GG_MEMBER floatv at_least(floatv x, floatv bound) {
    return bit_cast<floatv>(_mm512_max_ps(bit_cast<__m512>(bound), bit_cast<__m512>(x)));
  }
  static GG_MEMBER floatv at_most(floatv x, floatv bound) {
    return bit_cast<floatv>(_mm512_min_ps(bit_cast<__m512>(bound), bit_cast<__m512>(x)));
  }
};
#else
template <>
struct RealTraits<floatv> : VectorTraits<floatv, float, int32v> {};
#endif

template <>
struct RealTraits<int32v> {
  using Scalar = int32_t;
  using Integer = int32v;
};
template <>
struct RealTraits<int64v> {
  using Scalar = int64_t;
  using Integer = int64v;
};

template <class Storage>
struct Simd;
template <>
struct Simd<float> {
  using Vector = floatv;
  static constexpr int lanes = GG_VECTOR_BYTES / 4;
};
template <>
struct Simd<double> {
  using Vector = doublev;
  static constexpr int lanes = GG_VECTOR_BYTES / 8;
};
template <>
struct Simd<bfloat16> {
  using Vector = floatv;
  static constexpr int lanes = GG_VECTOR_BYTES / 4;
};

template <>
struct Simd<int32_t> {
  using Vector = int32v;
  static constexpr int lanes = GG_VECTOR_BYTES / 4;
};
template <>
struct Simd<int64_t> {
  using Vector = int64v;
  static constexpr int lanes = GG_VECTOR_BYTES / 8;
};

template <class Storage>
GG_HD typename Simd<Storage>::Vector load(const Storage* at) {
  typename Simd<Storage>::Vector value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}
GG_HD floatv load(const bfloat16* at) {
  typedef uint16_t halves __attribute__((vector_size(GG_VECTOR_BYTES / 2)));
  halves bits;
  __builtin_memcpy(&bits, at, sizeof bits);
  return bit_cast<floatv>(__builtin_convertvector(bits, uint32v) << 16);
}

template <class Storage>
GG_HD void store(Storage* at, typename Simd<Storage>::Vector value) {
  __builtin_memcpy(at, &value, sizeof value);
}
GG_HD void store(bfloat16* at, floatv value) {
  for (int lane = 0; lane < Simd<bfloat16>::lanes; ++lane) at[lane] = narrow(value[lane]);
}

// The first `count` lanes; the others read as 0 and are not touched in memory.
template <class Storage>
GG_HD typename Simd<Storage>::Vector load_partial(const Storage* at, int count) {
  typename Simd<Storage>::Vector value{};
  if (count == Simd<Storage>::lanes) return load(at);
  for (int lane = 0; lane < count; ++lane) value[lane] = load_scalar(at + lane);
  return value;
}
template <class Storage>
GG_HD void store_partial(Storage* at, typename Simd<Storage>::Vector value, int count) {
  if (count == Simd<Storage>::lanes) return store(at, value);
  for (int lane = 0; lane < count; ++lane) store_scalar(at + lane, value[lane]);
}

#if defined(__AVX512F__)
GG_HD floatv load_partial(const float* at, int count) {
  return bit_cast<floatv>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), at));
}
GG_HD void store_partial(float* at, floatv value, int count) {
  _mm512_mask_storeu_ps(at, static_cast<__mmask16>((1u << count) - 1), bit_cast<__m512>(value));
}
GG_HD doublev load_partial(const double* at, int count) {
  return bit_cast<doublev>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), at));
}
GG_HD void store_partial(double* at, doublev value, int count) {
  _mm512_mask_storeu_pd(at, static_cast<__mmask8>((1u << count) - 1), bit_cast<__m512d>(value));
}
#elif defined(__AVX2__)
GG_HD __m256i first_lanes32(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GG_HD __m256i first_lanes64(int count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
GG_HD floatv load_partial(const float* at, int count) {
  return bit_cast<floatv>(_mm256_maskload_ps(at, first_lanes32(count)));
}
GG_HD void store_partial(float* at, floatv value, int count) {
  _mm256_maskstore_ps(at, first_lanes32(count), bit_cast<__m256>(value));
}
GG_HD doublev load_partial(const double* at, int count) {
  return bit_cast<doublev>(_mm256_maskload_pd(at, first_lanes64(count)));
}
GG_HD void store_partial(double* at, doublev value, int count) {
  _mm256_maskstore_pd(at, first_lanes64(count), bit_cast<__m256d>(value));
}
#endif

#if defined(__AVX2__)
// A masked move does not look at what it moves.
GG_HD int32v load_partial(const int32_t* at, int count) {
  return bit_cast<int32v>(load_partial(reinterpret_cast<const float*>(at), count));
}
GG_HD void store_partial(int32_t* at, int32v value, int count) {
  store_partial(reinterpret_cast<float*>(at), bit_cast<floatv>(value), count);
}
GG_HD int64v load_partial(const int64_t* at, int count) {
  return bit_cast<int64v>(load_partial(reinterpret_cast<const double*>(at), count));
}
GG_HD void store_partial(int64_t* at, int64v value, int count) {
  store_partial(reinterpret_cast<double*>(at), bit_cast<doublev>(value), count);
}
#endif

// A run of features held in registers: `vectors` full vectors, or one partly filled.
template <class Storage, int N, bool partly>
struct Tile {
  using Vector = typename Simd<Storage>::Vector;
  static constexpr int vectors = N;
  static constexpr bool partial = partly;
  int64_t first;  // first feature
  int count;      // filled lanes of the partial vector

  Vector read(const Storage* row, int v) const {
    if constexpr (partly) return load_partial(row + first, count);
    return load(row + first + v * Simd<Storage>::lanes);
  }
  // The same, with `rest` in the lanes past the last feature.
  Vector read_or(const Storage* row, int v, Vector rest) const {
    if constexpr (partly) {
      typename RealTraits<Vector>::Integer lane{};
      for (int k = 0; k < Simd<Storage>::lanes; ++k) lane[k] = k;
      return lane < count ? load_partial(row + first, count) : rest;
    }
    return read(row, v);
  }
  // The same lanes of a value, with 0 in those past the last feature.
  Vector filled(Vector value) const {
    if constexpr (!partly) return value;
    typename RealTraits<Vector>::Integer lane{};
    for (int k = 0; k < Simd<Storage>::lanes; ++k) lane[k] = k;
    return lane < count ? value : Vector{};
  }
  void write(Storage* row, int v, Vector value) const {
    if constexpr (partly) return store_partial(row + first, value, count);
    store(row + first + v * Simd<Storage>::lanes, value);
  }
};

// Covers [0, features) with tiles, the widest first.
template <class Storage, class Body>
GG_HD void for_each_tile(int64_t features, Body&& body) {
  constexpr int lanes = Simd<Storage>::lanes;
  int64_t f = 0;
  for (; f + 4 * lanes <= features; f += 4 * lanes) body(Tile<Storage, 4, false>{f, 0});
  if (f + 2 * lanes <= features) {
    body(Tile<Storage, 2, false>{f, 0});
    f += 2 * lanes;
  }
  if (f + lanes <= features) {
    body(Tile<Storage, 1, false>{f, 0});
    f += lanes;
  }
  if (f < features) body(Tile<Storage, 1, true>{f, static_cast<int>(features - f)});
}

// The value where the mask is set (all bits of a lane), else 0.
template <class Vector>
GG_HD Vector where(typename RealTraits<Vector>::Integer mask, Vector value) {
  return bit_cast<Vector>(bit_cast<typename RealTraits<Vector>::Integer>(value) & mask);
}

// The lanes added in pairs, halves first: as many steps as the logarithm of their number.
template <class Scalar, int Lanes>
GG_HD Scalar sum_of_lanes(const Scalar (&lane)[Lanes]) {
  if constexpr (Lanes == 1) {
    return lane[0];
  } else {
    Scalar half[Lanes / 2];
    for (int k = 0; k < Lanes / 2; ++k) half[k] = lane[k] + lane[k + Lanes / 2];
    return sum_of_lanes(half);
  }
}
template <class Vector>
GG_HD typename RealTraits<Vector>::Scalar sum_of_lanes(Vector value) {
  typename RealTraits<Vector>::Scalar lane[sizeof(Vector) / sizeof(typename RealTraits<Vector>::Scalar)];
  __builtin_memcpy(lane, &value, sizeof value);
  return sum_of_lanes(lane);
}

// The same with two kinds of tile only, for bodies that are large: `vectors` wide, or the rest vector by vector.
template <class Storage, int vectors, class Body>
GG_HD void for_each_coarse_tile(int64_t features, Body&& body) {
  constexpr int lanes = Simd<Storage>::lanes;
  int64_t f = 0;
  for (; f + vectors * lanes <= features; f += vectors * lanes) body(Tile<Storage, vectors, false>{f, 0});
  for (; f < features; f += lanes)
    body(Tile<Storage, 1, true>{f, static_cast<int>(features - f < lanes ? features - f : lanes)});
}

}  // namespace gg
