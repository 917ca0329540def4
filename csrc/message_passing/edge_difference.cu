#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"
#include "neighbor_reduce.h"
#include "rbf.h"

namespace gg::cuda {
namespace {

// One group of threads a row; each member adds the products of its own features.
template <class S>
struct EdgeDifferenceDot {
  using Real = typename Accumulator<S>::Type;
  gg_edge_difference_dot_params p;
  Indices rowptr, neighbor;
  Group group;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item >> group.bits, own = row * p.features;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S *a = static_cast<const S*>(p.a), *b = static_cast<const S*>(p.b);
#pragma unroll 1
    for (int64_t e = first; e < last; ++e) {
      const int64_t other = neighbor[e] * p.features;
      Real sum = 0;
      for (int64_t f = group.lane(); f < p.features; f += group.size())
        sum += (load_scalar(a + own + f) - load_scalar(a + other + f)) *
               (load_scalar(b + own + f) - load_scalar(b + other + f));
      for (int step = group.size() / 2; step > 0; step /= 2) sum += group.exchange(sum, step);
      if (group.lane() == 0) store_scalar(static_cast<S*>(p.out) + e, p.root ? square_root(sum) : sum);
    }
  }
};

// One thread a row and feature.
template <class S>
struct EdgeLaplacian {
  using Real = typename Accumulator<S>::Type;
  gg_edge_laplacian_params p;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / p.features, feature = item % p.features;
    const S *x = static_cast<const S*>(p.x) + feature, *weight = static_cast<const S*>(p.weight);
    const Real own = load_scalar(x + row * p.features);
    Real sum = 0;
#pragma unroll
    for (int way = 0; way < 2; ++way) {
      const Indices rowptr{p.rowptr[way], p.index}, neighbor{p.neighbor[way], p.index}, edge{p.edge[way], p.index};
      const int64_t last = rowptr[row + 1];
#pragma unroll 1
      for (int64_t s = rowptr[row]; s < last; ++s)
        sum += load_scalar(weight + edge_of(edge, s)) * (own - load_scalar(x + neighbor[s] * p.features));
    }
    store_scalar(static_cast<S*>(p.out) + item, sum);
  }
};

}  // namespace

gg_status edge_difference_dot(const gg_edge_difference_dot_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const Group group = Group::of(p.features);
    const EdgeDifferenceDot<typename decltype(dtype)::type> kernel{
        p, {p.rowptr, p.index}, {p.neighbor, p.index}, group};
    return launch_items("edge_difference_dot", p.rows * group.size(), stream, kernel);
  });
}

gg_status edge_laplacian(const gg_edge_laplacian_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const EdgeLaplacian<typename decltype(dtype)::type> kernel{p};
    return launch_items("edge_laplacian", p.rows * p.features, stream, kernel);
  });
}

}  // namespace gg::cuda
