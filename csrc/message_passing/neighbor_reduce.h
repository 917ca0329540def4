// Gather, multiply and reduce over neighbours without storing anything of size [E, features].
#pragma once

#include "../common/indices.h"
#include "segment_reduce.h"

namespace gg {

// The edge a slot stands for; a null map is the identity.
GG_HD int64_t edge_of(const Indices& edge, int64_t slot) { return edge ? edge[slot] : slot; }

// Whether x takes the place of an earlier term: ties stay where they are, and so does a NaN once there is one.
template <class Real>
GG_HD auto takes_over(int reduce, Real x, Real best) {
  return reduce == GG_MAX ? ((x > best) | (x != x)) & (best == best) : ((x < best) | (x != x)) & (best == best);
}

}  // namespace gg
