// The derivatives of products with an activation, for scalars and for vectors.
#pragma once

#include "math.h"

namespace gg {

// With factors z[1..Order], term[0] = act^(Order)(z[0]) z[1] ... z[Order] and, only if `lower` says so,
// term[m] = act^(Order - 1)(z[0]) times the factors but z[m].
template <int Kind, int Order, class Real>
GG_HD void activation_terms(const Real (&z)[Order + 1], bool lower, Real (&term)[Order + 1]) {
  term[0] = activation<static_cast<Activation>(Kind), Order>(z[0]);
  GG_UNROLL
  for (int m = 1; m <= Order; ++m) term[0] = term[0] * z[m];
  if constexpr (Order > 0) {
    if (!lower) return;
    const Real slope = activation<static_cast<Activation>(Kind), Order - 1>(z[0]);
    GG_UNROLL
    for (int m = 1; m <= Order; ++m) {
      term[m] = slope;
      GG_UNROLL
      for (int n = 1; n <= Order; ++n)
        if (n != m) term[m] = term[m] * z[n];
    }
  }
}

}  // namespace gg
