// The terms of a softmax: shifted by the row's maximum, so that nothing overflows.
#pragma once

#include "../common/math.h"

namespace gg {

// NaN wins, so that it is seen in the result.
template <class Real>
GG_HD Real softmax_max(Real highest, Real value) {
  return value > highest || value != value ? value : highest;
}

template <class Real>
GG_HD Real softmax_term(Real value, Real highest) {
  return exp_(value - highest);
}

}  // namespace gg
