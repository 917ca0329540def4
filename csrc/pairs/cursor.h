// Walks over the pairs i < j of molecules in their order.
#pragma once

#include "../graphgen.h"

namespace gg {

struct PairCursor {
  const int64_t* ptr;
  const int64_t* pair_ptr;
  int64_t molecule = 0, first = 0, second = 0;

  // At pair `row`, which there must be; nowhere if rows are no pairs.
  PairCursor(const gg_pairs& pairs, int64_t row)
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
  void next() {
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
