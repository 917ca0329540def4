// One term of a message sum, of any order, for scalars and for vectors.
#pragma once

#include "../common/math.h"
#include "../graphgen.h"

namespace gg {

// z[0] is the argument of the activation, z[1..Order] are the factors of its Order-th derivative.
template <int Kind, int Order, class Real>
GG_HD Real message_term(const Real (&z)[Order + 1]) {
  Real term = activation<static_cast<Activation>(Kind), Order>(z[0]);
  for (int m = 1; m <= Order; ++m) term = term * z[m];
  return term;
}

}  // namespace gg
