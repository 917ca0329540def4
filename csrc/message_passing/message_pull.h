// What the sweeps of a pull read and write.
#pragma once

#include "../graphgen.h"

namespace gg {

// One sweep over the edges by row: the rows are targets, or, with the parts swapped, sources. The gradients are those
// of the targets, so of the row itself or of its neighbours.
struct PullSweep {
  const void *own, *other, *bias, *own_along, *other_along;
  const void *value_grad, *tangent_grad;
  void *to_rows, *to_types, *to_along;
  gg_message_edges edges;
  void* partial;
  int64_t rows, features, types, count;
  int32_t index;
  bool by_source;

  PullSweep(const gg_message_pull_params& p, bool by_source)
      : own(by_source ? p.source : p.target),
        other(by_source ? p.target : p.source),
        bias(p.bias),
        own_along(by_source ? p.source_along : p.target_along),
        other_along(by_source ? p.target_along : p.source_along),
        value_grad(p.value_grad),
        tangent_grad(p.tangent_grad),
        to_rows(by_source ? p.to_source : p.to_target),
        to_types(by_source ? nullptr : p.to_bias),
        to_along(by_source ? p.to_source_along : p.to_target_along),
        edges(by_source ? p.by_source : p.by_target),
        partial(p.partial),
        rows(p.rows),
        features(p.features),
        types(p.types),
        count(p.count),
        index(p.index),
        by_source(by_source) {}
  int64_t chunks() const { return (rows + GG_MESSAGE_CHUNK - 1) / GG_MESSAGE_CHUNK; }
};

}  // namespace gg
