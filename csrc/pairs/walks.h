// A step of a walk on the bonds of a molecule.
#pragma once

#include "../common/host_device.h"

#include <math.h>

namespace gg {

// 1 / sqrt(d) of an atom, given the sum of its bonds.
template <class Real>
GG_HD Real walk_root(Real degree) {
  return Real(1) / sqrt(degree > Real(1) ? degree : Real(1));
}

// S_ij, given the roots of both.
template <class Real>
GG_HD Real walk_step(Real bonded, Real one, Real other) {
  return bonded * (one * other);
}

}  // namespace gg
