#include "rbf.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

// One thread a row and basis function.
template <class S>
struct RbfRows {
  using Real = typename Accumulator<S>::Type;
  gg_rbf_rows_params p;
  Indices rowptr;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / p.bases, k = item % p.bases;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S *weight = static_cast<const S*>(p.weight), *distance = static_cast<const S*>(p.distance);
    const Real center = load_scalar(static_cast<const S*>(p.centers) + k);
    const Real gamma = load_scalar(static_cast<const S*>(p.gamma) + k);
    Real sum = 0;
#pragma unroll 1
    for (int64_t e = first; e < last; ++e) {
      const Real w = weight ? load_scalar(weight + e) : Real(1);
      sum += w * rbf_term<true>(load_scalar(distance + e), center, gamma, p.power);
    }
    store_scalar(static_cast<S*>(p.out) + item, sum);
  }
};

// One group of threads a row; each member adds its own basis functions.
template <class S>
struct RbfEdges {
  using Real = typename Accumulator<S>::Type;
  gg_rbf_edges_params p;
  Indices rowptr;
  Group group;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item >> group.bits;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S *centers = static_cast<const S*>(p.centers), *gamma = static_cast<const S*>(p.gamma);
    const S* rows = static_cast<const S*>(p.rows_of) + row * p.bases;
#pragma unroll 1
    for (int64_t e = first; e < last; ++e) {
      const Real distance = load_scalar(static_cast<const S*>(p.distance) + e);
      Real sum = 0;
#pragma unroll 1
      for (int64_t k = group.lane(); k < p.bases; k += group.size())
        sum +=
            load_scalar(rows + k) * rbf_term<true>(distance, load_scalar(centers + k), load_scalar(gamma + k), p.power);
      for (int step = group.size() / 2; step > 0; step /= 2) sum += group.exchange(sum, step);
      if (group.lane() == 0) store_scalar(static_cast<S*>(p.out) + e, sum);
    }
  }
};

}  // namespace

gg_status rbf_rows(const gg_rbf_rows_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const RbfRows<typename decltype(dtype)::type> kernel{p, {p.rowptr, p.index}};
    return launch_items("rbf_rows", p.rows * p.bases, stream, kernel);
  });
}

gg_status rbf_edges(const gg_rbf_edges_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const Group group = Group::of(p.bases);
    const RbfEdges<typename decltype(dtype)::type> kernel{p, {p.rowptr, p.index}, group};
    return launch_items("rbf_edges", p.rows * group.size(), stream, kernel);
  });
}

}  // namespace gg::cuda
