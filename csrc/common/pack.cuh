// Neighbouring elements that one thread moves in one access, and the ways threads share a row.
#pragma once

#include "bfloat16.h"
#include "dispatch.h"

#include <stdint.h>

namespace gg::cuda {

template <class S, int N>
struct alignas(N * sizeof(S)) Pack {
  using Real = typename Accumulator<S>::Type;
  S lane[N];

  __device__ __forceinline__ Real operator[](int v) const { return load_scalar(lane + v); }
  __device__ __forceinline__ void set(int v, Real value) { store_scalar(lane + v, value); }
  static __device__ __forceinline__ Pack load(const S* at) { return *reinterpret_cast<const Pack*>(at); }
  __device__ __forceinline__ void store(S* at) const { *reinterpret_cast<Pack*>(at) = *this; }
};

template <class S>
constexpr int kPack = 16 / sizeof(S);

// Whether rows of `features` elements at these addresses (null ones aside) can be moved in packs of N.
template <class S, int N = kPack<S>, class... Pointers>
static inline bool packable(int64_t features, Pointers... arrays) {
  const uintptr_t addresses = (reinterpret_cast<uintptr_t>(arrays) | ...);
  return features % N == 0 && addresses % (N * sizeof(S)) == 0;
}

// body(dtype, elements per pack): 16 bytes, but no more than `most` elements, where `packed`, which is asked for each
// dtype, allows it; otherwise one.
template <int most = 8, class Packed, class Body>
static inline gg_status with_pack(int dtype, Packed&& packed, Body&& body) {
  return with_dtype(dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    return packed(type) ? body(type, Constant<(kPack<S> < most ? kPack<S> : most)>{}) : body(type, Constant<1>{});
  });
}

// The same, integers too.
template <class Packed, class Body>
static inline gg_status with_any_pack(int dtype, Packed&& packed, Body&& body) {
  return with_any_dtype(dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    return packed(type) ? body(type, Constant<kPack<S>>{}) : body(type, Constant<1>{});
  });
}

// A power of two of neighbouring threads within one warp that work on one row together.
struct Group {
  int bits;

  static Group of(int64_t members) {
    int bits = 0;
    while (bits < 5 && (1 << bits) < members) ++bits;
    return Group{bits};
  }
  __host__ __device__ __forceinline__ int size() const { return 1 << bits; }
  __device__ __forceinline__ int lane() const { return threadIdx.x & (size() - 1); }
  // The value of the member at that distance; every member of the group must call.
  template <class Real>
  __device__ __forceinline__ Real exchange(Real value, int distance) const {
    const unsigned members = 0xffffffffu >> (32 - size());
    return __shfl_xor_sync(members << (threadIdx.x & 31 & -size()), value, distance);
  }
};

}  // namespace gg::cuda
