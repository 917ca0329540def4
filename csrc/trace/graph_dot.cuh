// One warp a graph: its elements four by four, a lane every 32nd four, so that a probe can be made in place of a read.
#pragma once

#include "../common/bfloat16.h"
#include "../common/indices.h"
#include "../common/launch.cuh"

namespace gg::cuda {

// The elements of a segment, kept within the array whatever ptr says.
struct Elements {
  int64_t first, count;
  __device__ __forceinline__ Elements(const Indices& ptr, int64_t segment, int64_t rows, int64_t features) {
    int64_t begin = ptr[segment], end = ptr[segment + 1];
    if (begin < 0) begin = 0;
    if (end > rows) end = rows;
    if (end < begin) end = begin;
    first = begin * features;
    count = (end - begin) * features;
  }
};

// The sum over a segment of the terms that term(quad, left, terms) writes for elements 4 quad to 4 quad + 3, of which
// `left` are left; the same in every lane.
template <class Real, class Term>
static __device__ __forceinline__ Real warp_sum(int64_t count, const Term& term) {
  Real sum[4] = {};
#pragma unroll 1
  for (int64_t quad = threadIdx.x % kWarp; 4 * quad < count; quad += kWarp) {
    Real terms[4] = {};
    term(quad, count - 4 * quad, terms);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] += terms[k];
  }
  Real total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) total += __shfl_xor_sync(0xffffffffu, total, distance);
  return total;
}

}  // namespace gg::cuda
