#include "segment_reduce.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

constexpr int kInFlight = 4;  // rows loaded before the first is added

// The rows of a segment, kept within the array whatever ptr says.
struct Rows {
  int64_t first, last;
  __device__ __forceinline__ Rows(const Indices& ptr, int64_t segment, int64_t rows)
      : first(ptr[segment]), last(ptr[segment + 1]) {
    if (first < 0) first = 0;
    if (last > rows) last = rows;
  }
};

// One thread a segment and pack of features.
template <class S, int N>
struct SegmentReduce {
  using Real = typename Accumulator<S>::Type;
  gg_segment_reduce_params p;
  Indices ptr;
  int64_t packs;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t segment = item / packs, feature = item % packs * N;
    const Rows rows(ptr, segment, p.rows);
    const S* src = static_cast<const S*>(p.src) + feature;
    Real sum[N] = {};
#pragma unroll 1
    for (int64_t r = rows.first; r < rows.last; r += kInFlight) {
      Pack<S, N> row[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (r + u < rows.last) row[u] = Pack<S, N>::load(src + (r + u) * p.features);
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (r + u < rows.last)
          for (int v = 0; v < N; ++v) sum[v] += row[u][v];
    }
    const Real scale = reduce_scale<Real>(p.reduce, rows.last - rows.first);
    Pack<S, N> result;
    for (int v = 0; v < N; ++v) result.set(v, sum[v] * scale);
    result.store(static_cast<S*>(p.out) + segment * p.features + feature);
  }
};

// One thread a segment and pack of features.
template <class S, int N>
struct SegmentBroadcast {
  using Real = typename Accumulator<S>::Type;
  gg_segment_broadcast_params p;
  Indices ptr;
  int64_t packs;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t segment = item / packs, feature = item % packs * N;
    const Rows rows(ptr, segment, p.rows);
    const Real scale = reduce_scale<Real>(p.reduce, rows.last - rows.first);
    Pack<S, N> value = Pack<S, N>::load(static_cast<const S*>(p.src) + segment * p.features + feature);
    for (int v = 0; v < N; ++v) value.set(v, value[v] * scale);
    S* out = static_cast<S*>(p.out) + feature;
    for (int64_t r = rows.first; r < rows.last; ++r) value.store(out + r * p.features);
  }
};

// Both have the same shape of parameters and of work.
template <template <class, int> class Kernel, class Params>
gg_status launch_segments(const char* operation, const Params& p, void* stream) {
  return with_pack(
      p.dtype, [&](auto type) { return packable<typename decltype(type)::type>(p.features, p.src, p.out); },
      [&](auto type, auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t count = p.features / N;
        const Kernel<typename decltype(type)::type, N> kernel{p, {p.ptr, p.index}, count};
        return launch_items(operation, p.segments * count, stream, kernel);
      });
}

}  // namespace

gg_status segment_reduce(const gg_segment_reduce_params& p, void* stream) {
  return launch_segments<SegmentReduce>("segment_reduce", p, stream);
}

gg_status segment_broadcast(const gg_segment_broadcast_params& p, void* stream) {
  return launch_segments<SegmentBroadcast>("segment_broadcast", p, stream);
}

}  // namespace gg::cuda
