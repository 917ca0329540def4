#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

// 16 bytes of an array of `size` elements, fewer at its end; a null array counts as 0.
template <class S>
struct Window {
  static constexpr int N = kPack<S>;
  int64_t first, size;
  bool packed;

  __device__ __forceinline__ bool whole() const { return packed && first + N <= size; }
  __device__ __forceinline__ Pack<S, N> read(const void* array, int64_t row) const {
    Pack<S, N> result{};
    if (!array) return result;
    const S* from = static_cast<const S*>(array) + row * size + first;
    if (whole()) return Pack<S, N>::load(from);
#pragma unroll
    for (int v = 0; v < N; ++v)
      if (first + v < size) result.lane[v] = from[v];
    return result;
  }
  __device__ __forceinline__ void write(void* array, int64_t row, const Pack<S, N>& values) const {
    if (!array) return;
    S* to = static_cast<S*>(array) + row * size + first;
    if (whole()) return values.store(to);
#pragma unroll
    for (int v = 0; v < N; ++v)
      if (first + v < size) to[v] = values.lane[v];
  }
};

// One thread 16 bytes of every array.
template <class S, int Kind>
struct ActivatePush {
  using Real = typename Accumulator<S>::Type;
  static constexpr Activation kKind = static_cast<Activation>(Kind);
  static constexpr int N = kPack<S>;
  gg_activate_push_params p;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Window<S> at{item * N, p.size, packed};
    const Pack<S, N> x = at.read(p.x, 0), y = at.read(p.y, 0), skip = at.read(p.skip, 0);
    Pack<S, N> value;
    Real slope[N];
#pragma unroll
    for (int v = 0; v < N; ++v) {
      const Real z = x[v] + y[v];
      slope[v] = activation<kKind, 1>(z);
      value.set(v, RealTraits<Real>::add_apart(skip[v], activation<kKind, 0>(z)));
    }
    at.write(p.value, 0, value);
#pragma unroll 1
    for (int64_t k = 0; k < p.count; ++k) {
      const Pack<S, N> dx = at.read(p.x_along, k), dy = at.read(p.y_along, k), dskip = at.read(p.skip_along, k);
      Pack<S, N> tangent;
#pragma unroll
      for (int v = 0; v < N; ++v) tangent.set(v, RealTraits<Real>::add_apart(dskip[v], slope[v] * (dx[v] + dy[v])));
      at.write(p.tangent, k, tangent);
    }
  }
};

template <class S, int Kind>
struct ActivatePull {
  using Real = typename Accumulator<S>::Type;
  static constexpr Activation kKind = static_cast<Activation>(Kind);
  static constexpr int N = kPack<S>;
  gg_activate_pull_params p;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Window<S> at{item * N, p.size, packed};
    const Pack<S, N> x = at.read(p.x, 0), y = at.read(p.y, 0);
    Real z[N], slope[N], product[N] = {};
#pragma unroll
    for (int v = 0; v < N; ++v) {
      z[v] = x[v] + y[v];
      slope[v] = activation<kKind, 1>(z[v]);
    }
#pragma unroll 1
    for (int64_t k = 0; k < p.count; ++k) {
      const Pack<S, N> dx = at.read(p.x_along, k), dy = at.read(p.y_along, k), grad = at.read(p.tangent_grad, k);
      Pack<S, N> to_along;
#pragma unroll
      for (int v = 0; v < N; ++v) {
        to_along.set(v, slope[v] * grad[v]);
        product[v] = RealTraits<Real>::add_apart(product[v], (dx[v] + dy[v]) * grad[v]);
      }
      at.write(p.to_along, k, to_along);
    }
    if (!p.to_z) return;
    const Pack<S, N> value_grad = at.read(p.value_grad, 0);
    Pack<S, N> to_z;
#pragma unroll
    for (int v = 0; v < N; ++v)
      to_z.set(v, RealTraits<Real>::add_apart(slope[v] * value_grad[v], activation<kKind, 2>(z[v]) * product[v]));
    at.write(p.to_z, 0, to_z);
  }
};

template <template <class, int> class Kernel, class Params, class... Pointers>
gg_status launch(const char* operation, const Params& p, void* stream, Pointers... arrays) {
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    return with_activation(p.activation, [&](auto kind) {
      // Every row of tangents begins where a pack may.
      const bool packed = packable<S>(p.count > 1 ? p.size : 0, static_cast<const void*>(arrays)...);
      const Kernel<S, decltype(kind)::value> kernel{p, packed};
      return launch_items(operation, (p.size + kernel.N - 1) / kernel.N, stream, kernel);
    });
  });
}

}  // namespace

gg_status activate_push(const gg_activate_push_params& p, void* stream) {
  return launch<ActivatePush>("activate_push", p, stream, p.x, p.y, p.skip, p.x_along, p.y_along, p.skip_along, p.value,
                              p.tangent);
}

gg_status activate_pull(const gg_activate_pull_params& p, void* stream) {
  return launch<ActivatePull>("activate_pull", p, stream, p.x, p.y, p.x_along, p.y_along, p.value_grad, p.tangent_grad,
                              p.to_z, p.to_along);
}

}  // namespace gg::cuda
