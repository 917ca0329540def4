#include "walks.h"

#include "../common/cuda_kernels.h"
#include "cursor.h"
#include "refuse.cuh"

namespace gg::cuda {
namespace {

// One block a molecule, one warp an atom that walks start from. Of the powers of S only one row is kept; S itself,
// which is symmetric, is made of the bonds wherever it is needed.
template <class S>
struct Walks {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kWarps = kThreads / kWarp, kMost = GG_PAIR_ATOMS + 1;
  gg_pair_walks_params p;

  __device__ __forceinline__ void operator()(int64_t g) const {
    __shared__ Real root[kMost], row[2][kWarps][kMost];
    const int64_t* ptr = static_cast<const int64_t*>(p.pairs.ptr) + g;
    const int64_t* pair_ptr = static_cast<const int64_t*>(p.pairs.pair_ptr) + g;
    const S* bonded = static_cast<const S*>(p.bonded) + pair_ptr[0];
    S* returns = static_cast<S*>(p.returns) + ptr[0] * p.length;
    S* walks = static_cast<S*>(p.walks) + pair_ptr[0] * p.length;
    if (ptr[1] - ptr[0] > GG_PAIR_ATOMS) {
      refuse(returns, (ptr[1] - ptr[0]) * p.length);
      refuse(walks, (pair_ptr[1] - pair_ptr[0]) * p.length);
      return;
    }
    const int n = static_cast<int>(ptr[1] - ptr[0]), warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) {
      Real degree = 0;
      for_each_other(i, n, [&](int64_t, int64_t place) { degree += load_scalar(bonded + place); });
      root[i] = walk_root(degree);
    }
    __syncthreads();
#pragma unroll 1
    for (int i = warp; i < n; i += kWarps) {
      Real *now = row[0][warp], *after = row[1][warp];
      for (int c = lane; c < n; c += kWarp) now[c] = c == i ? Real(1) : Real(0);
#pragma unroll 1
      for (int64_t k = 0; k < p.length; ++k) {
        __syncwarp();
        for (int c = lane; c < n; c += kWarp) {
          Real sum = 0;
#pragma unroll 4
          for (int j = 0; j < n; ++j)
            if (j != c) sum += now[j] * walk_step(load_scalar(bonded + pair_place(j, c, n)), root[j], root[c]);
          after[c] = sum;
          if (c == i) store_scalar(returns + i * p.length + k, sum);
          if (c > i) store_scalar(walks + int64_t{pair_place(i, c, n)} * p.length + k, sum);
        }
        Real* const held = now;
        now = after;
        after = held;
      }
      __syncwarp();
    }
  }
};

}  // namespace

gg_status pair_walks(const gg_pair_walks_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    return launch_blocks("pair_walks", p.pairs.molecules, stream, Walks<typename decltype(dtype)::type>{p});
  });
}

}  // namespace gg::cuda
