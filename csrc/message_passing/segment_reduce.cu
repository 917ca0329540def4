#include "segment_reduce.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

constexpr int kInFlight = 4;  // rows loaded before the first is added

// The slots of a segment, kept within the array whatever ptr says, and the rows they stand for.
struct Slots {
  int64_t first, last;
  Indices order;
  template <class Params>
  __device__ __forceinline__ Slots(const Params& p, const Indices& ptr, const Indices& rows, int64_t segment)
      : first(ptr[segment]), last(ptr[segment + 1]), order(rows) {
    if (first < 0) first = 0;
    if (last > p.rows) last = p.rows;
    if (last < first) last = first;
  }
  __device__ __forceinline__ int64_t row(int64_t slot) const { return order ? order[slot] : slot; }
};

// Each kernel: one thread a segment and pack of features.
template <class Params>
struct SegmentKernel {
  Params p;
  Indices ptr, order;
  int64_t packs;
};

template <class S, int N, int Reduce>
struct Fold : SegmentKernel<gg_segment_reduce_params> {
  using Real = typename Accumulator<S>::Type;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t segment = item / packs, feature = item % packs * N;
    const Slots slots(p, ptr, order, segment);
    const S* src = static_cast<const S*>(p.src) + feature;
    Real folded[N];
#pragma unroll
    for (int v = 0; v < N; ++v) folded[v] = Reduce == GG_MUL ? 1 : 0;
#pragma unroll 1
    for (int64_t k = slots.first; k < slots.last; k += kInFlight) {
      Pack<S, N> row[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (k + u < slots.last) row[u] = Pack<S, N>::load(src + slots.row(k + u) * p.features);
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (k + u < slots.last)
#pragma unroll
          for (int v = 0; v < N; ++v) folded[v] = fold<Reduce, Real>(folded[v], row[u][v]);
    }
    Pack<S, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) result.set(v, finished<Reduce, Real>(folded[v], slots.last - slots.first));
    result.store(static_cast<S*>(p.out) + segment * p.features + feature);
  }
};

template <class S, int N, int Reduce>
struct Extreme : SegmentKernel<gg_segment_reduce_params> {
  using Real = typename Accumulator<S>::Type;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t segment = item / packs, feature = item % packs * N;
    const Slots slots(p, ptr, order, segment);
    const S* src = static_cast<const S*>(p.src) + feature;
    Real best[N] = {};
    int64_t at[N];
#pragma unroll
    for (int v = 0; v < N; ++v) at[v] = slots.first;
    if (slots.first < slots.last) {
      const Pack<S, N> row = Pack<S, N>::load(src + slots.row(slots.first) * p.features);
#pragma unroll
      for (int v = 0; v < N; ++v) best[v] = row[v];
    }
#pragma unroll 1
    for (int64_t k = slots.first + 1; k < slots.last; k += kInFlight) {
      Pack<S, N> row[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (k + u < slots.last) row[u] = Pack<S, N>::load(src + slots.row(k + u) * p.features);
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (k + u < slots.last)
#pragma unroll
          for (int v = 0; v < N; ++v) {
            const Real x = row[u][v];
            at[v] = winner<Reduce>(x, best[v], k + u, at[v]);
            best[v] = winner<Reduce>(x, best[v], x, best[v]);
          }
    }
    const int64_t to = segment * p.features + feature;
    Pack<S, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) result.set(v, best[v]);
    result.store(static_cast<S*>(p.out) + to);
    if (p.arg) {
#pragma unroll
      for (int v = 0; v < N; ++v) p.arg[to + v] = slots.first < slots.last ? slots.row(at[v]) : p.rows;
    }
  }
};

template <class S, int N>
struct Broadcast : SegmentKernel<gg_segment_broadcast_params> {
  using Real = typename Accumulator<S>::Type;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t segment = item / packs, feature = item % packs * N;
    const Slots slots(p, ptr, order, segment);
    Pack<S, N> value = Pack<S, N>::load(static_cast<const S*>(p.src) + segment * p.features + feature);
    if (p.reduce == GG_MEAN) {
#pragma unroll
      for (int v = 0; v < N; ++v) value.set(v, finished<GG_MEAN, Real>(value[v], slots.last - slots.first));
    }
    S* out = static_cast<S*>(p.out) + feature;
    for (int64_t k = slots.first; k < slots.last; ++k) value.store(out + slots.row(k) * p.features);
  }
};

// The products of the rows before, then times those of the rows behind.
template <class S, int N>
struct Others : SegmentKernel<gg_segment_others_params> {
  using Real = typename Accumulator<S>::Type;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t segment = item / packs, feature = item % packs * N;
    const Slots slots(p, ptr, order, segment);
    const S* src = static_cast<const S*>(p.src) + feature;
    S* out = static_cast<S*>(p.out) + feature;
    Pack<S, N> before, behind;
#pragma unroll
    for (int v = 0; v < N; ++v) {
      before.set(v, 1);
      behind.set(v, 1);
    }
#pragma unroll 1
    for (int64_t k = slots.first; k < slots.last; ++k) {
      const int64_t at = slots.row(k) * p.features;
      before.store(out + at);
      const Pack<S, N> x = Pack<S, N>::load(src + at);
#pragma unroll
      for (int v = 0; v < N; ++v) before.set(v, before[v] * x[v]);
    }
#pragma unroll 1
    for (int64_t k = slots.last - 1; k >= slots.first; --k) {
      const int64_t at = slots.row(k) * p.features;
      Pack<S, N> product = Pack<S, N>::load(out + at);
      const Pack<S, N> x = Pack<S, N>::load(src + at);
#pragma unroll
      for (int v = 0; v < N; ++v) {
        product.set(v, product[v] * behind[v]);
        behind.set(v, behind[v] * x[v]);
      }
      product.store(out + at);
    }
  }
};

// launch(dtype, elements per pack, packs per row)
template <class Params, class Launch>
gg_status with_rows(const Params& p, Launch&& launch) {
  return with_any_pack(
      p.dtype, [&](auto type) { return packable<typename decltype(type)::type>(p.features, p.src, p.out); },
      [&](auto type, auto width) { return launch(type, width, p.features / decltype(width)::value); });
}

}  // namespace

gg_status segment_reduce(const gg_segment_reduce_params& p, void* stream) {
  return with_rows(p, [&](auto type, auto width, int64_t packs) {
    return with_reduce(p.reduce, [&](auto reduce) {
      using S = typename decltype(type)::type;
      constexpr int N = decltype(width)::value, Reduce = decltype(reduce)::value;
      const SegmentKernel<gg_segment_reduce_params> on{p, {p.ptr, p.index}, {p.order, p.index}, packs};
      if constexpr (kIsExtreme<Reduce>)
        return launch_items("segment_reduce", p.segments * packs, stream, Extreme<S, N, Reduce>{on});
      else
        return launch_items("segment_reduce", p.segments * packs, stream, Fold<S, N, Reduce>{on});
    });
  });
}

gg_status segment_broadcast(const gg_segment_broadcast_params& p, void* stream) {
  return with_rows(p, [&](auto type, auto width, int64_t packs) {
    const Broadcast<typename decltype(type)::type, decltype(width)::value> kernel{
        {p, {p.ptr, p.index}, {p.order, p.index}, packs}};
    return launch_items("segment_broadcast", p.segments * packs, stream, kernel);
  });
}

gg_status segment_others(const gg_segment_others_params& p, void* stream) {
  return with_rows(p, [&](auto type, auto width, int64_t packs) {
    const Others<typename decltype(type)::type, decltype(width)::value> kernel{
        {p, {p.ptr, p.index}, {p.order, p.index}, packs}};
    return launch_items("segment_others", p.segments * packs, stream, kernel);
  });
}

}  // namespace gg::cuda
