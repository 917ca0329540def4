#include "neighbor_reduce.h"

#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

constexpr int kInFlight = 4;  // slots whose rows are loaded before the first is added

// Which lanes of a pack count: those whose arg is this edge.
template <int N>
__device__ __forceinline__ unsigned counting(const int64_t* arg, int64_t edge) {
  unsigned lanes = 0;
#pragma unroll
  for (int v = 0; v < N; ++v) lanes |= static_cast<unsigned>(arg[v] == edge) << v;
  return lanes;
}

// The weights of a pack's features: one of each if PerFeature, else the pack lies within one head.
template <class S, int N, bool PerFeature>
struct PackWeights {
  using Real = typename Accumulator<S>::Type;
  Pack<S, PerFeature ? N : 1> weight;

  static __device__ __forceinline__ PackWeights load(const gg_neighbor_reduce_params& p, int64_t edge,
                                                     int64_t feature) {
    PackWeights weights{};
    weights.weight.set(0, 1);
    if (p.weight) {
      const int64_t column = PerFeature ? feature : p.heads == 1 ? 0 : feature / (p.features / p.heads);
      weights.weight = Pack < S, PerFeature ? N : 1 > ::load(static_cast<const S*>(p.weight) + edge * p.heads + column);
    }
    return weights;
  }
  __device__ __forceinline__ Real operator[](int v) const { return weight[PerFeature ? v : 0]; }
};

// One thread a row and pack of features.
template <class S, int N, bool PerFeature, bool Masked>
struct NeighborSum {
  using Real = typename Accumulator<S>::Type;
  gg_neighbor_reduce_params p;
  Indices rowptr, neighbor, edge;
  int64_t packs;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / packs, feature = item % packs * N;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S* x = static_cast<const S*>(p.x) + feature;
    const int64_t* arg = p.arg + feature;
    Real sum[N] = {};
#pragma unroll 1
    for (int64_t s = first; s < last; s += kInFlight) {
      int64_t j[kInFlight], e[kInFlight];
      Pack<S, N> value[kInFlight];
      PackWeights<S, N, PerFeature> w[kInFlight];
      unsigned counts[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last) {
          j[u] = neighbor[s + u];
          e[u] = edge_of(edge, s + u);
        }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last) {
          value[u] = Pack<S, N>::load(x + j[u] * p.features);
          w[u] = PackWeights<S, N, PerFeature>::load(p, e[u], feature);
          if (Masked) counts[u] = counting<N>(arg + (p.arg_of_neighbor ? j[u] : row) * p.features, e[u]);
        }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last)
#pragma unroll
          for (int v = 0; v < N; ++v)
            if (!Masked || (counts[u] >> v & 1)) sum[v] += w[u][v] * value[u][v];
    }
    const Real scale = reduce_scale<Real>(p.reduce, last - first);
    Pack<S, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) result.set(v, sum[v] * scale);
    result.store(static_cast<S*>(p.out) + row * p.features + feature);
  }
};

// One thread a row and pack of features.
template <class S, int N, bool PerFeature>
struct NeighborExtreme {
  using Real = typename Accumulator<S>::Type;
  gg_neighbor_reduce_params p;
  Indices rowptr, neighbor, edge;
  int64_t packs;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / packs, feature = item % packs * N;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S* x = static_cast<const S*>(p.x) + feature;
    Real best[N] = {};
    int64_t which[N];
#pragma unroll
    for (int v = 0; v < N; ++v) which[v] = p.edges;
#pragma unroll 1
    for (int64_t s = first; s < last; ++s) {
      const int64_t e = edge_of(edge, s);
      const Pack<S, N> value = Pack<S, N>::load(x + neighbor[s] * p.features);
      const PackWeights<S, N, PerFeature> w = PackWeights<S, N, PerFeature>::load(p, e, feature);
#pragma unroll
      for (int v = 0; v < N; ++v) {
        const Real term = w[v] * value[v];
        if (s == first || takes_over(p.reduce, term, best[v])) {
          best[v] = term;
          which[v] = e;
        }
      }
    }
    const int64_t at = row * p.features + feature;
    Pack<S, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) result.set(v, best[v]);
    result.store(static_cast<S*>(p.out) + at);
    if (p.out_arg) {
#pragma unroll
      for (int v = 0; v < N; ++v) p.out_arg[at + v] = which[v];
    }
  }
};

// One group of threads a row and head; each member adds the products of its own features.
template <class S, int N, bool Masked>
struct EdgeDot {
  using Real = typename Accumulator<S>::Type;
  gg_edge_dot_params p;
  Indices rowptr, neighbor, edge;
  int64_t packs;  // of a head
  Group group;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = (item >> group.bits) / p.heads, head = (item >> group.bits) % p.heads;
    const int64_t first = rowptr[row], last = rowptr[row + 1], skip = head * packs * N;
    const S* target = static_cast<const S*>(p.target) + row * p.features + skip;
    const S* source = static_cast<const S*>(p.source) + skip;
    const int64_t* arg = p.arg + skip;
#pragma unroll 1
    for (int64_t s = first; s < last; s += kInFlight) {
      int64_t j[kInFlight], e[kInFlight];
      Real sum[kInFlight] = {};
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
        if (s + u < last) {
          j[u] = neighbor[s + u];
          e[u] = edge_of(edge, s + u);
        }
#pragma unroll 1
      for (int64_t pack = group.lane(); pack < packs; pack += group.size()) {
        const Pack<S, N> a = Pack<S, N>::load(target + pack * N);
        Pack<S, N> b[kInFlight];
        unsigned counts[kInFlight];
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) {
            b[u] = Pack<S, N>::load(source + j[u] * p.features + pack * N);
            if (Masked) counts[u] = counting<N>(arg + (p.arg_of_neighbor ? j[u] : row) * p.features + pack * N, e[u]);
          }
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last)
#pragma unroll
            for (int v = 0; v < N; ++v)
              if (!Masked || (counts[u] >> v & 1)) sum[u] += a[v] * b[u][v];
      }
      for (int distance = group.size() / 2; distance > 0; distance /= 2)
#pragma unroll
        for (int u = 0; u < kInFlight; ++u) sum[u] += group.exchange(sum[u], distance);
      if (group.lane() == 0) {
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) store_scalar(static_cast<S*>(p.out) + e[u] * p.heads + head, sum[u]);
      }
    }
  }
};

// Heads of one feature: nothing to add. One thread a row and pack of features.
template <class S, int N, bool Masked>
struct EdgeProduct {
  using Real = typename Accumulator<S>::Type;
  gg_edge_dot_params p;
  Indices rowptr, neighbor, edge;
  int64_t packs;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / packs, feature = item % packs * N;
    const Pack<S, N> a = Pack<S, N>::load(static_cast<const S*>(p.target) + row * p.features + feature);
#pragma unroll 1
    for (int64_t s = rowptr[row]; s < rowptr[row + 1]; ++s) {
      const int64_t j = neighbor[s], e = edge_of(edge, s);
      const Pack<S, N> b = Pack<S, N>::load(static_cast<const S*>(p.source) + j * p.features + feature);
      unsigned counts = ~0u;
      if (Masked) counts = counting<N>(p.arg + (p.arg_of_neighbor ? j : row) * p.features + feature, e);
      Pack<S, N> product;
#pragma unroll
      for (int v = 0; v < N; ++v) product.set(v, counts >> v & 1 ? a[v] * b[v] : Real(0));
      product.store(static_cast<S*>(p.out) + e * p.features + feature);
    }
  }
};

template <class Body>
gg_status with_truth(bool value, Body&& body) {
  return value ? body(Constant<1>{}) : body(Constant<0>{});
}

}  // namespace

gg_status neighbor_reduce(const gg_neighbor_reduce_params& p, void* stream) {
  if (p.features == 0) return GG_OK;
  const int64_t width = p.features / p.heads;
  const bool per_feature = p.weight && p.heads > 1 && width == 1;
  // A pack of several features has one weight, or as many as it has features.
  auto packed = [&](auto type) {
    using S = typename decltype(type)::type;
    if (!packable<S>(p.features, p.x, p.out)) return false;
    if (!p.weight || p.heads == 1) return true;
    return per_feature ? packable<S>(p.features, p.weight) : width % kPack<S> == 0;
  };
  return with_pack(p.dtype, packed, [&](auto type, auto pack) {
    return with_truth(per_feature, [&](auto each) {
      using S = typename decltype(type)::type;
      constexpr int N = decltype(pack)::value;
      constexpr bool PerFeature = decltype(each)::value;
      const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index}, edge{p.edge, p.index};
      const int64_t packs = p.features / N, items = p.rows * packs;
      if (p.reduce == GG_MAX || p.reduce == GG_MIN) {
        const NeighborExtreme<S, N, PerFeature> kernel{p, rowptr, neighbor, edge, packs};
        return launch_items("neighbor_reduce", items, stream, kernel);
      }
      return with_truth(p.arg, [&](auto masked) {
        const NeighborSum<S, N, PerFeature, decltype(masked)::value> kernel{p, rowptr, neighbor, edge, packs};
        return launch_items("neighbor_reduce", items, stream, kernel);
      });
    });
  });
}

gg_status edge_dot(const gg_edge_dot_params& p, void* stream) {
  if (p.heads == 0) return GG_OK;
  const int64_t width = p.features / p.heads;
  const bool products = width == 1;
  auto packed = [&](auto type) {
    using S = typename decltype(type)::type;
    if (products) return packable<S>(p.features, p.target, p.source, p.out);
    return width % kPack<S> == 0 && packable<S>(p.features, p.target, p.source);
  };
  return with_pack(p.dtype, packed, [&](auto type, auto pack) {
    return with_truth(p.arg, [&](auto masked) {
      using S = typename decltype(type)::type;
      constexpr int N = decltype(pack)::value;
      constexpr bool Masked = decltype(masked)::value;
      const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index}, edge{p.edge, p.index};
      if (products) {
        const int64_t packs = p.features / N;
        const EdgeProduct<S, N, Masked> kernel{p, rowptr, neighbor, edge, packs};
        return launch_items("edge_dot", p.rows * packs, stream, kernel);
      }
      const int64_t packs = width / N;
      const Group group = Group::of(packs);
      const EdgeDot<S, N, Masked> kernel{p, rowptr, neighbor, edge, packs, group};
      return launch_items("edge_dot", p.rows * p.heads * group.size(), stream, kernel);
    });
  });
}

}  // namespace gg::cuda
