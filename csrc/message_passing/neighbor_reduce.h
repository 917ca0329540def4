// Gather, multiply and reduce over neighbours without storing anything of size [E, features].
#pragma once

#include "../common/indices.h"
#include "segment_reduce.h"

namespace gg {

// The edge a slot stands for; a null map is the identity.
GG_HD int64_t edge_of(const Indices& edge, int64_t slot) { return edge ? edge[slot] : slot; }

}  // namespace gg
