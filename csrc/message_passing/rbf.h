// Radial basis functions of the lengths of edges.
#pragma once

#include "../common/math.h"

namespace gg {

// z^power exp(-gamma z^2) for z = distance - center. Without kPowered the power is 0.
template <bool kPowered, class Real>
GG_HD Real rbf_term(Real distance, Real center, Real gamma, int power) {
  const Real z = distance - center;
  Real term = exp_(-gamma * z * z);
  if constexpr (kPowered)
    for (int k = 0; k < power; ++k) term = term * z;
  return term;
}

GG_HD float square_root(float x) { return __builtin_sqrtf(x); }
GG_HD double square_root(double x) { return __builtin_sqrt(x); }

}  // namespace gg
