// Attention over neighbours: what a softmax is shifted by.
#pragma once

#include "../common/math.h"
#include "edge_softmax.h"

namespace gg {

// The highest logit so far; where there is none but -inf any finite shift makes the right 0 of it.
template <class Real>
GG_HD Real shift_of(Real highest) {
  return highest < Real(0) && highest - highest != Real(0) ? Real(0) : highest;
}

}  // namespace gg
