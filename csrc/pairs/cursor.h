// Where the pairs i < j of molecules lie, and walks over them in their order.
#pragma once

#include "../common/host_device.h"
#include "../graphgen.h"

namespace gg {

// The place of the pair of atoms i and j of n among its molecule's.
template <class Integer>
GG_HD Integer pair_place(Integer i, Integer j, Integer n) {
  const Integer low = i < j ? i : j, high = i < j ? j : i;
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

struct PairCursor {
  const int64_t* ptr;
  const int64_t* pair_ptr;
  int64_t molecule = 0, first = 0, second = 0;

  // At pair `row`, which there must be; nowhere if rows are no pairs.
  GG_MEMBER PairCursor(const gg_pairs& pairs, int64_t row)
      : ptr(static_cast<const int64_t*>(pairs.ptr)), pair_ptr(static_cast<const int64_t*>(pairs.pair_ptr)) {
    if (!ptr) return;
    int64_t low = 0, high = pairs.molecules;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (pair_ptr[middle] <= row ? low : high) = middle;
    }
    molecule = low;
    first = ptr[molecule];
    int64_t left = row - pair_ptr[molecule];
    for (int64_t later = ptr[molecule + 1] - first - 1; left >= later; --later) {
      left -= later;
      ++first;
    }
    second = first + 1 + left;
  }

  // To the next pair, which there must be.
  GG_MEMBER void next() {
    if (++second < ptr[molecule + 1]) return;
    if (++first + 1 >= ptr[molecule + 1]) {
      do ++molecule;
      while (ptr[molecule + 1] - ptr[molecule] < 2);
      first = ptr[molecule];
    }
    second = first + 1;
  }
};

}  // namespace gg
