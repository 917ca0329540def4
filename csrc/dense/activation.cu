#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

// One thread 16 bytes.
template <class S, int Kind, int Order>
struct Activate {
  static constexpr int N = kPack<S>;
  const S* x;
  S* out;
  int64_t count;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t first = item * N;
    const bool whole = packed && first + N <= count;
    Pack<S, N> value{};
    if (whole) {
      value = Pack<S, N>::load(x + first);
    } else {
#pragma unroll
      for (int v = 0; v < N; ++v)
        if (first + v < count) value.lane[v] = x[first + v];
    }
#pragma unroll
    for (int v = 0; v < N; ++v) value.set(v, activation<static_cast<Activation>(Kind), Order>(value[v]));
    if (whole) {
      value.store(out + first);
    } else {
#pragma unroll
      for (int v = 0; v < N; ++v)
        if (first + v < count) out[first + v] = value.lane[v];
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
        const Kernel kernel{static_cast<const S*>(p.x), static_cast<S*>(p.out), p.count, packable<S>(0, p.x, p.out)};
        return launch_items("activate", (p.count + Kernel::N - 1) / Kernel::N, stream, kernel);
      });
    });
  });
}

}  // namespace gg::cuda
