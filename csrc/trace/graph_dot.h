// The dot product of two runs of elements, in an order that depends on their length alone. CPU kernels only.
#pragma once

#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S>
struct RunningDot {
  using Real = typename Accumulator<S>::Type;
  using Vector = typename Simd<S>::Vector;
  Vector sum[4] = {};

  // Of pieces of a run all but the last must hold a multiple of 4 vectors.
  void add(const S* a, const S* b, int64_t count) {
    for_each_tile<S>(count, [&](auto tile) {
      for (int v = 0; v < decltype(tile)::vectors; ++v) sum[v] += tile.read(a, v) * tile.read(b, v);
    });
  }
  Real total() const { return sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])); }
};

}  // namespace gg::GG_ISA
