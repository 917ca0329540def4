// Softmax over the edges that enter a node.
#pragma once

#include "../common/math.h"

namespace gg {

// A NaN need not win here: it meets the row's sum as a term, and so every result of its row.
template <class Real>
GG_HD Real higher(Real highest, Real value) {
  return value > highest ? value : highest;
}

}  // namespace gg
