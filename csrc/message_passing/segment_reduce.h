// Reduce and broadcast over ragged rows.
#pragma once

#include "../common/host_device.h"
#include "../graphgen.h"

namespace gg {

// What a sum over `count` rows is multiplied by; an empty segment keeps its 0.
template <class Real>
GG_HD Real reduce_scale(int reduce, int64_t count) {
  return reduce == GG_MEAN && count > 0 ? Real(1) / static_cast<Real>(count) : Real(1);
}

}  // namespace gg
