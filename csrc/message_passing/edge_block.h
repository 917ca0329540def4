// The slots of a block of rows, laid out so that a sweep over them takes no branch the graph decides. An atom has one
// to four neighbours: a loop of that length per row is mispredicted about once a row, which costs more than the row.
#pragma once

#include "../common/simd.h"
#include "../graphgen.h"

namespace gg::GG_ISA {

struct EdgeBlock {
  static constexpr int kSlots = 256;  // so that the block and the rows it moves stay in the first cache
  static constexpr int kRows = 256;
  static constexpr int kAtOnce = 4;  // slots of a row written without looking at how many it has

  int64_t first_row, rows, slots, empty_rows;
  int32_t row[kSlots + kAtOnce];  // of each slot, counted from first_row
  int32_t same_row[kSlots];       // -1 where the slot before is of the same row, else 0
  int64_t neighbor[kSlots];
  int64_t edge[kSlots];
  int32_t empty[kRows + 1];  // rows without a slot

  // The next rows from `first`, at most to `last`, as far as their slots fit; none if those of the first do not.
  template <class Index>
  GG_MEMBER void fill(const Index* rowptr, const Index* neighbors, const Index* edges, int64_t first, int64_t last) {
    const int64_t begin = rowptr[first], most = last - first < kRows ? last - first : kRows;
    first_row = first;
    empty_rows = 0;
    int64_t r = 0, at = 0;
    for (; r < most; ++r) {
      const int64_t end = rowptr[first + r + 1] - begin;
      if (end > kSlots) break;
      for (int k = 0; k < kAtOnce; ++k) row[at + k] = static_cast<int32_t>(r);
      for (int64_t k = at + kAtOnce; k < end; ++k) row[k] = static_cast<int32_t>(r);
      empty[empty_rows] = static_cast<int32_t>(r);
      empty_rows += end == at;
      at = end;
    }
    rows = r;
    slots = at;
    if (slots == 0) return;
    same_row[0] = 0;
    for (int64_t s = 1; s < slots; ++s) same_row[s] = -(row[s] == row[s - 1]);
    for (int64_t s = 0; s < slots; ++s) neighbor[s] = neighbors[begin + s];
    if (edges)
      for (int64_t s = 0; s < slots; ++s) edge[s] = edges[begin + s];
    else
      for (int64_t s = 0; s < slots; ++s) edge[s] = begin + s;
  }
};

// Edges by the row that sums over them; see the C interface.
struct Adjacency {
  const void *rowptr, *neighbor, *edge;
  int32_t index;
};

// on_block(block) for runs of rows [first, last), on_row(row) for a row of more slots than a block holds.
template <class OnBlock, class OnRow>
static inline void for_each_block(const Adjacency& edges, int64_t first, int64_t last, OnBlock&& on_block,
                                  OnRow&& on_row) {
  EdgeBlock block;
  while (first < last) {
    if (edges.index == GG_INT64)
      block.fill(static_cast<const int64_t*>(edges.rowptr), static_cast<const int64_t*>(edges.neighbor),
                 static_cast<const int64_t*>(edges.edge), first, last);
    else
      block.fill(static_cast<const int32_t*>(edges.rowptr), static_cast<const int32_t*>(edges.neighbor),
                 static_cast<const int32_t*>(edges.edge), first, last);
    if (block.rows == 0) {
      on_row(first++);
    } else {
      on_block(block);
      first += block.rows;
    }
  }
}

}  // namespace gg::GG_ISA
