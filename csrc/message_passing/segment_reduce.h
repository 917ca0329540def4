// Reduce over ragged rows, for scalars and for vectors, and what its derivatives need.
#pragma once

#include "../common/host_device.h"
#include "../graphgen.h"

#include <type_traits>

namespace gg {

// What a sum over `count` rows is multiplied by; an empty segment keeps its 0.
template <class Real>
GG_HD Real reduce_scale(int reduce, int64_t count) {
  return reduce == GG_MEAN && count > 0 ? Real(1) / static_cast<Real>(count) : Real(1);
}

template <int Reduce>
constexpr bool kIsExtreme = Reduce == GG_MAX || Reduce == GG_MIN;

template <int Reduce, class Real>
GG_HD Real fold(Real so_far, Real x) {
  static_assert(!kIsExtreme<Reduce>, "extremes have `winner`");
  if constexpr (Reduce == GG_MUL) return so_far * x;
  return so_far + x;
}

// What belongs to the winner of x and an earlier row: ties stay where they are, and so does a NaN once there is one.
// Choices one after the other, since compilers join masks of vectors badly.
template <int Reduce, class Real, class Chosen>
GG_HD Chosen winner(Real x, Real best, Chosen of_x, Chosen of_best) {
  static_assert(kIsExtreme<Reduce>, "a maximum or a minimum");
  Chosen chosen = (Reduce == GG_MAX ? x > best : x < best) ? of_x : of_best;
  chosen = x != x ? of_x : chosen;
  return best != best ? of_best : chosen;
}

// A folded scalar as the result: the mean of integers floors.
template <int Reduce, class Real>
GG_HD Real finished(Real folded, int64_t count) {
  if constexpr (Reduce != GG_MEAN) return folded;
  if constexpr (!std::is_integral_v<Real>) return folded * reduce_scale<Real>(Reduce, count);
  if (count == 0) return folded;
  const int64_t sum = static_cast<int64_t>(folded);
  return static_cast<Real>(sum / count - (sum % count < 0));
}

}  // namespace gg
