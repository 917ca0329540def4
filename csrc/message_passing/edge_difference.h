// What an edge makes of the difference of its ends.
#pragma once

#include "../common/indices.h"
#include "../common/simd.h"
#include "neighbor_reduce.h"

namespace gg {

// <a - b, c - d> of four rows.
template <class S>
GG_HD typename Accumulator<S>::Type difference_dot(const S* a, const S* b, const S* c, const S* d, int64_t features) {
  typename Simd<S>::Vector sum{};
  for_each_tile<S>(features, [&](auto tile) {
    for (int v = 0; v < decltype(tile)::vectors; ++v)
      sum += (tile.read(a, v) - tile.read(b, v)) * (tile.read(c, v) - tile.read(d, v));
  });
  typename Accumulator<S>::Type total = 0;
  for (int lane = 0; lane < Simd<S>::lanes; ++lane) total += sum[lane];
  return total;
}

}  // namespace gg
