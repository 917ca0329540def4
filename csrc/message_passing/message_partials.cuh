// The last step of a sum by edge type: partial sums, one table a chunk of rows, added in order.
#pragma once

#include "../common/dispatch.h"

#include <stdint.h>

namespace gg::cuda {

// One thread a type and feature.
template <class S>
struct AddPartials {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kSlots = 16;
  const Real* partial;
  S* out;
  int64_t chunks, stride;  // from a chunk's sums to the next chunk's

  __device__ __forceinline__ void operator()(int64_t item) const {
    Real sum = 0;
#pragma unroll 1
    for (int64_t chunk = 0; chunk < chunks; chunk += kSlots) {
      Real value[kSlots];
#pragma unroll
      for (int u = 0; u < kSlots; ++u)
        if (chunk + u < chunks) value[u] = partial[(chunk + u) * stride + item];
#pragma unroll
      for (int u = 0; u < kSlots; ++u)
        if (chunk + u < chunks) sum += value[u];
    }
    store_scalar(out + item, sum);
  }
};

}  // namespace gg::cuda
