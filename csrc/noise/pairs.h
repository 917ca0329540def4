// Symmetric pair features: the rows of a graph of n nodes are its n * n ordered pairs (i, j), row i * n + j, and both
// orders of a pair share their noise. Feature c of the pair j <= i is element (i (i + 1) / 2 + j) * features + c, so a
// pair keeps its number when nodes are added.
#pragma once

#include "../common/host_device.h"

#include <math.h>
#include <stdint.h>

namespace gg {

// The n with n * n rows, rounded down.
GG_HD int64_t side_of(int64_t rows) {
  int64_t n = static_cast<int64_t>(sqrt(static_cast<double>(rows)));
  while (n * n > rows) --n;
  while ((n + 1) * (n + 1) <= rows) ++n;
  return n;
}

GG_HD int64_t pairs_of(int64_t n) { return n * (n + 1) / 2; }

struct Pair {
  int64_t i, j;  // j <= i

  static GG_MEMBER Pair at(int64_t number) {
    int64_t i = static_cast<int64_t>((sqrt(8.0 * static_cast<double>(number) + 1.0) - 1.0) / 2.0);
    while (pairs_of(i) > number) --i;
    while (pairs_of(i + 1) <= number) ++i;
    return {i, number - pairs_of(i)};
  }
  GG_MEMBER int64_t row(int64_t n) const { return i * n + j; }
  GG_MEMBER int64_t mirrored_row(int64_t n) const { return j * n + i; }
};

}  // namespace gg
