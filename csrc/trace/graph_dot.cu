#include "../common/bfloat16.h"
#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/launch.cuh"

namespace gg::cuda {
namespace {

// One warp a graph: its elements four by four, a lane every 32nd four.

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
__device__ __forceinline__ Real warp_sum(int64_t count, const Term& term) {
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

// One warp a pair of vectors and segment.
template <class S>
struct Dot {
  using Real = typename Accumulator<S>::Type;
  gg_graph_dot_params p;
  Indices ptr;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t place = item / kWarp, segment = place % p.segments, pair = place / p.segments;
    const Elements elements(ptr, segment, p.rows, p.features);
    const int64_t size = p.rows * p.features;
    const S* a = static_cast<const S*>(p.a) + pair / p.count_b * size + elements.first;
    const S* b = static_cast<const S*>(p.b) + pair % p.count_b * size + elements.first;
    const Real sum = warp_sum<Real>(elements.count, [&](int64_t quad, int64_t left, Real(&terms)[4]) {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (k < left) terms[k] = load_scalar(a + 4 * quad + k) * load_scalar(b + 4 * quad + k);
    });
    if (threadIdx.x % kWarp == 0) store_scalar(static_cast<S*>(p.out) + place, sum);
  }
};

// One warp a result and segment.
template <class S>
struct Combine {
  using Real = typename Accumulator<S>::Type;
  gg_graph_combine_params p;
  Indices ptr;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t place = item / kWarp, segment = place % p.segments, result = place / p.segments;
    const Elements elements(ptr, segment, p.rows, p.features);
    const int64_t size = p.rows * p.features;
    const S* weight = static_cast<const S*>(p.weight) + result * p.terms * p.segments + segment;
    const S* b = static_cast<const S*>(p.b) + elements.first;
    S* out = static_cast<S*>(p.out) + result * size + elements.first;
#pragma unroll 1
    for (int64_t e = threadIdx.x % kWarp; e < elements.count; e += kWarp) {
      Real sum = 0;
#pragma unroll 1
      for (int64_t m = 0; m < p.terms; ++m) sum += load_scalar(weight + m * p.segments) * load_scalar(b + m * size + e);
      store_scalar(out + e, sum);
    }
  }
};

}  // namespace

gg_status graph_dot(const gg_graph_dot_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const Dot<typename decltype(dtype)::type> kernel{p, {p.ptr, p.index}};
    return launch_items("graph_dot", p.count_a * p.count_b * p.segments * kWarp, stream, kernel);
  });
}

gg_status graph_combine(const gg_graph_combine_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const Combine<typename decltype(dtype)::type> kernel{p, {p.ptr, p.index}};
    return launch_items("graph_combine", p.count * p.segments * kWarp, stream, kernel);
  });
}

}  // namespace gg::cuda
