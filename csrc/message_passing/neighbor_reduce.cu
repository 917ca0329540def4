#include "neighbor_reduce.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

constexpr int kInFlight = 4;  // slots whose rows are loaded before the first is added

// One thread a row and pack of features.
template <class S, int N>
struct NeighborReduce {
  using Real = typename Accumulator<S>::Type;
  gg_neighbor_reduce_params p;
  Indices rowptr, neighbor, edge;
  int64_t packs;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / packs, feature = item % packs * N;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S* x = static_cast<const S*>(p.x) + feature;
    const S* weight = static_cast<const S*>(p.weight);
    Real sum[N] = {};
#pragma unroll 1
    for (int64_t s = first; s < last; s += kInFlight) {
      int64_t j[kInFlight], e[kInFlight];
      Pack<S, N> value[kInFlight];
      Real w[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last) {
          j[u] = neighbor[s + u];
          e[u] = weight ? edge_of(edge, s + u) : 0;
        }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last) {
          value[u] = Pack<S, N>::load(x + j[u] * p.features);
          w[u] = weight ? load_scalar(weight + e[u]) : Real(1);
        }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last)
          for (int v = 0; v < N; ++v) sum[v] += w[u] * value[u][v];
    }
    const Real scale = reduce_scale<Real>(p.reduce, last - first);
    Pack<S, N> result;
    for (int v = 0; v < N; ++v) result.set(v, sum[v] * scale);
    result.store(static_cast<S*>(p.out) + row * p.features + feature);
  }
};

// One group of threads a row; each member adds the products of its own features.
template <class S, int N>
struct EdgeDot {
  using Real = typename Accumulator<S>::Type;
  gg_edge_dot_params p;
  Indices rowptr, neighbor, edge;
  int64_t packs;
  Group group;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item >> group.bits;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S* target = static_cast<const S*>(p.target) + row * p.features;
    const S* source = static_cast<const S*>(p.source);
#pragma unroll 1
    for (int64_t s = first; s < last; s += kInFlight) {
      int64_t j[kInFlight];
      Real sum[kInFlight] = {};
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last) j[u] = neighbor[s + u];
#pragma unroll 1
      for (int64_t pack = group.lane(); pack < packs; pack += group.size()) {
        const Pack<S, N> a = Pack<S, N>::load(target + pack * N);
        Pack<S, N> b[kInFlight];
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) b[u] = Pack<S, N>::load(source + j[u] * p.features + pack * N);
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last)
            for (int v = 0; v < N; ++v) sum[u] += a[v] * b[u][v];
      }
      for (int distance = group.size() / 2; distance > 0; distance /= 2)
#pragma unroll
        for (int u = 0; u < kInFlight; ++u) sum[u] += group.exchange(sum[u], distance);
      if (group.lane() == 0) {
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) store_scalar(static_cast<S*>(p.out) + edge_of(edge, s + u), sum[u]);
      }
    }
  }
};

}  // namespace

gg_status neighbor_reduce(const gg_neighbor_reduce_params& p, void* stream) {
  return with_pack(
      p.dtype, [&](auto type) { return packable<typename decltype(type)::type>(p.features, p.x, p.out); },
      [&](auto type, auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t packs = p.features / N;
        const NeighborReduce<typename decltype(type)::type, N> kernel{
            p, {p.rowptr, p.index}, {p.neighbor, p.index}, {p.edge, p.index}, packs};
        return launch_items("neighbor_reduce", p.rows * packs, stream, kernel);
      });
}

gg_status edge_dot(const gg_edge_dot_params& p, void* stream) {
  return with_pack(
      p.dtype, [&](auto type) { return packable<typename decltype(type)::type>(p.features, p.target, p.source); },
      [&](auto type, auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t packs = p.features / N;
        const Group group = Group::of(packs);
        const EdgeDot<typename decltype(type)::type, N> kernel{
            p, {p.rowptr, p.index}, {p.neighbor, p.index}, {p.edge, p.index}, packs, group};
        return launch_items("edge_dot", p.rows * group.size(), stream, kernel);
      });
}

}  // namespace gg::cuda
