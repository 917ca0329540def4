// What the sweeps of a message sum read and write.
#pragma once

#include "../common/activation_terms.h"
#include "../graphgen.h"

namespace gg {

// One sweep over the edges by row: the rows are targets, or, with the parts swapped, sources.
struct MessageSweep {
  const void *own[GG_ORDERS], *other[GG_ORDERS], *bias[GG_ORDERS];
  void *rows_out[GG_ORDERS], *types_out[GG_ORDERS];
  int place[GG_ORDERS];  // of an output by type among those there are
  gg_message_edges edges;
  void* partial;
  int64_t rows, features, types;
  int32_t index, sums_by_type;
  bool rows_wanted, factors;  // whether there is any output by row, and any of a term but the first

  MessageSweep(const gg_message_sum_params& p, bool by_source)
      : edges(by_source ? p.by_source : p.by_target),
        partial(p.partial),
        rows(p.rows),
        features(p.features),
        types(p.types),
        index(p.index),
        sums_by_type(0),
        rows_wanted(false),
        factors(false) {
    for (int m = 0; m <= p.order; ++m) {
      own[m] = by_source ? p.term[m].source : p.term[m].target;
      other[m] = by_source ? p.term[m].target : p.term[m].source;
      bias[m] = p.term[m].bias;
      rows_out[m] = by_source ? p.out[m].source : p.out[m].target;
      types_out[m] = by_source ? nullptr : p.out[m].bias;
      place[m] = sums_by_type;
      sums_by_type += types_out[m] != nullptr;
      rows_wanted = rows_wanted || rows_out[m];
      factors = factors || (m > 0 && (rows_out[m] || types_out[m]));
    }
  }
  int64_t chunks() const { return (rows + GG_MESSAGE_CHUNK - 1) / GG_MESSAGE_CHUNK; }
};

}  // namespace gg
