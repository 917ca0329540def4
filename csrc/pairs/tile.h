// A molecule's rows of numbers by atom: one head at a time, padded to whole vectors.
#pragma once

#include "../common/simd.h"
#include "../graphgen.h"

#include <limits>

namespace gg::GG_ISA {

// Where the pair of atoms i and j of n lies among its molecule's.
GG_HD int64_t pair_place(int64_t i, int64_t j, int64_t n) {
  const int64_t low = i < j ? i : j, high = i < j ? j : i;
  return low * (2 * n - low - 1) / 2 + high - low - 1;
}

// body(j, the place of the pair of i and j) for every other j, in order.
template <class Body>
GG_HD void for_each_other(int64_t i, int64_t n, Body&& body) {
  int64_t place = i - 1;
  for (int64_t j = 0; j < i; ++j) {
    body(j, place);
    place += n - j - 2;
  }
  place = i * (2 * n - i - 1) / 2;
  for (int64_t j = i + 1; j < n; ++j) body(j, place++);
}

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
