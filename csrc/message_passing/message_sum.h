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

#ifdef __CUDACC__
// A sum that no product is fused into: the compiler does so for one width of a pack and not for another, and a
// column's bits must not depend on where it stands. The CPU's `rounded` (simd.h) is for the same.
GG_HD float add_rounded(float sum, float term) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(sum, term);
#else
  return sum + term;
#endif
}
GG_HD double add_rounded(double sum, double term) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(sum, term);
#else
  return sum + term;
#endif
}
#endif

}  // namespace gg
