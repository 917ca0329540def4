// The dot products of the edges of a block of rows, per head. CPU kernels only.
#pragma once

#include "edge_block.h"

#include <utility>

namespace gg::GG_ISA {

// Halves what is left of the sums: u and v hold sums of `Width` lanes each; so does the result, twice as many of half
// the width, those of u first. In the order of sum_of_lanes.
template <int Width, class Vector, int... lane>
GG_HD Vector halve(Vector u, Vector v, std::integer_sequence<int, lane...>) {
  constexpr int half = Width / 2;
  return __builtin_shufflevector(u, v, (lane / half * Width + lane % half)...) +
         __builtin_shufflevector(u, v, (lane / half * Width + lane % half + half)...);
}

// Lane r of the result is the sum of the lanes of the r-th of `Count` vectors: a transpose that adds as it goes.
template <class Real, int Count = Simd<Real>::lanes>
GG_HD typename Simd<Real>::Vector sums_of_lanes(const Real* vectors) {
  constexpr int lanes = Simd<Real>::lanes;
  if constexpr (Count == 1) {
    return load(vectors);
  } else {
    return halve<2 * lanes / Count>(sums_of_lanes<Real, Count / 2>(vectors),
                                    sums_of_lanes<Real, Count / 2>(vectors + Count / 2 * lanes),
                                    std::make_integer_sequence<int, lanes>{});
  }
}

template <class S>
struct BlockDot {
  using Real = typename Accumulator<S>::Type;
  static constexpr int lanes = Simd<Real>::lanes;

  const S* target;  // rows of `stride`, from the first head on
  const S* source;
  int64_t stride, heads, width;

  // out[s, h] for every slot; out has room for `lanes` more.
  __attribute__((noinline)) void rows(const EdgeBlock& block, Real* out) const {
    Real products[lanes * lanes];
    int waiting = 0;
    for (int64_t s = 0; s < block.slots; ++s) {
      const S* a = target + (block.first_row + block.row[s]) * stride;
      const S* b = source + block.neighbor[s] * stride;
      for (int64_t h = 0; h < heads; ++h, a += width, b += width) {
        typename Simd<S>::Vector sum{};
        for_each_tile<S>(width, [&](auto tile) {
          for (int v = 0; v < decltype(tile)::vectors; ++v) sum += tile.read(a, v) * tile.read(b, v);
        });
        store(products + waiting * lanes, sum);
        if (++waiting < lanes) continue;
        store(out, sums_of_lanes(products));
        out += lanes;
        waiting = 0;
      }
    }
    if (!waiting) return;
    for (int k = waiting * lanes; k < lanes * lanes; ++k) products[k] = 0;
    store(out, sums_of_lanes(products));
  }
};

}  // namespace gg::GG_ISA
