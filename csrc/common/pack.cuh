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

// Whether rows of `features` elements at these addresses (null ones aside) can be moved 16 bytes at a time.
template <class S, class... Pointers>
static inline bool packs(int64_t features, Pointers... arrays) {
  const uintptr_t addresses = (reinterpret_cast<uintptr_t>(arrays) | ...);
  return features % kPack<S> == 0 && addresses % 16 == 0;
}

// body(dtype, elements per pack): 16 bytes where `packed`, which is asked for each dtype, allows it; otherwise one.
template <class Packed, class Body>
static inline gg_status with_pack(int dtype, Packed&& packed, Body&& body) {
  return with_dtype(dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    return packed(type) ? body(type, Constant<kPack<S>>{}) : body(type, Constant<1>{});
  });
}

// A power of two of neighbouring threads, within one warp, that work on one row together.
struct Group {
  int size;

  static Group of(int64_t members) {
    int size = 1;
    while (size < members && size < 32) size *= 2;
    return Group{size};
  }
  __device__ __forceinline__ int lane() const { return threadIdx.x & (size - 1); }
  __device__ __forceinline__ unsigned mask() const {
    const unsigned members = size == 32 ? 0xffffffffu : (1u << size) - 1;
    return members << ((threadIdx.x & 31) & ~(size - 1));
  }
  // Combines the members' values in an order that depends on the size alone; every member gets the result.
  template <class Real, class Combine>
  __device__ __forceinline__ Real reduce(Real value, Combine&& combine) const {
    for (int distance = size / 2; distance > 0; distance /= 2)
      value = combine(value, __shfl_xor_sync(mask(), value, distance));
    return value;
  }
};

}  // namespace gg::cuda
