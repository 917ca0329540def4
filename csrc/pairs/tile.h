// A molecule's rows of numbers by atom: one head at a time, padded to whole vectors.
#pragma once

#include "../common/simd.h"
#include "../graphgen.h"

#include <limits>

namespace gg::GG_ISA {

// The maximum of a padded row, and exp(x - maximum) in its place; returns the sum of these.
template <class S>
static GG_MEMBER S exponentials(S* row, int64_t padded) {
  using Vector = typename Simd<S>::Vector;
  constexpr int lanes = Simd<S>::lanes;
  Vector top = load(row);
  for (int64_t f = lanes; f < padded; f += lanes) top = RealTraits<Vector>::at_least(load(row + f), top);
  S highest = top[0];
  for (int k = 1; k < lanes; ++k) highest = top[k] > highest ? top[k] : highest;
  Vector sum{};
  for (int64_t f = 0; f < padded; f += lanes) {
    const Vector value = exp_(load(row + f) - highest);
    store(row + f, value);
    sum += value;
  }
  return sum_of_lanes(sum);
}

}  // namespace gg::GG_ISA
