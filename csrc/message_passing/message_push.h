// Where a message layer's tangents are found.
#pragma once

#include "../common/indices.h"
#include "../graphgen.h"

namespace gg {

struct TangentRows {
  Indices home, own, first, from;
  int64_t target_rows, source_rows;
  bool by_target, by_source;  // whether the tangents have such a part

  explicit TangentRows(const gg_message_push_params& p)
      : home(p.home, p.index),
        own(p.own, p.index),
        first(p.first, p.index),
        from(p.from, p.index),
        target_rows(p.target_rows),
        source_rows(p.source_rows),
        by_target(p.target_along != nullptr),
        by_source(p.source_along != nullptr) {}

  static GG_MEMBER int64_t among(int64_t row, int64_t rows) { return rows == 1 && row > 0 ? 0 : row; }
  GG_MEMBER int64_t node(int64_t row) const { return home ? home[row] : row; }
  // Negative where there is none.
  GG_MEMBER int64_t of_target(int64_t row) const {
    if (!by_target) return -1;
    return home ? among(own[row], target_rows) : row;
  }
  // The row's slot, counted from its first, has this neighbour.
  GG_MEMBER int64_t of_source(int64_t row, int64_t slot, int64_t neighbor) const {
    if (!by_source) return -1;
    return home ? among(from[first[row] + slot], source_rows) : neighbor;
  }
};

}  // namespace gg
