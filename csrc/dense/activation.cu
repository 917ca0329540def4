#include "../common/activation_terms.h"
#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

// One thread 16 bytes of every array.
template <class S, int Kind, int Order>
struct Activate {
  using Real = typename Accumulator<S>::Type;
  static constexpr int N = kPack<S>, kTerms = Order + 1;
  gg_activate_params p;
  bool packed, lower;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t first = item * N;
    const bool whole = packed && first + N <= p.count;
    Pack<S, N> x[kTerms], out[Order + 1];
#pragma unroll
    for (int m = 0; m < kTerms; ++m) {
      const S* from = static_cast<const S*>(p.x[m]) + first;
      x[m] = Pack<S, N>{};
      if (!p.x[m]) continue;
      if (whole) {
        x[m] = Pack<S, N>::load(from);
      } else {
#pragma unroll
        for (int v = 0; v < N; ++v)
          if (first + v < p.count) x[m].lane[v] = from[v];
      }
    }
#pragma unroll
    for (int v = 0; v < N; ++v) {
      Real z[kTerms], term[Order + 1] = {};
#pragma unroll
      for (int m = 0; m < kTerms; ++m) z[m] = x[m][v];
      activation_terms<Kind, Order>(z, lower, term);
#pragma unroll
      for (int m = 0; m <= Order; ++m) out[m].set(v, term[m]);
    }
#pragma unroll
    for (int m = 0; m <= Order; ++m) {
      S* to = static_cast<S*>(p.out[m]) + first;
      if (!p.out[m]) continue;
      if (whole) {
        out[m].store(to);
      } else {
#pragma unroll
        for (int v = 0; v < N; ++v)
          if (first + v < p.count) to[v] = out[m].lane[v];
      }
    }
  }
};

}  // namespace

gg_status activate(const gg_activate_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    return with_activation(p.activation, [&](auto kind) {
      return with_order(p.order, [&](auto order) {
        using Kernel = Activate<S, decltype(kind)::value, decltype(order)::value>;
        bool packed = true, lower = false;
        for (int m = 0; m <= p.order; ++m) {
          packed = packed && packable<S>(0, p.x[m], static_cast<const void*>(p.out[m]));
          lower = lower || (m > 0 && p.out[m]);
        }
        const Kernel kernel{p, packed, lower};
        return launch_items("activate", (p.count + Kernel::N - 1) / Kernel::N, stream, kernel);
      });
    });
  });
}

}  // namespace gg::cuda
