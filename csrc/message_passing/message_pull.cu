#include "message_pull.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"
#include "message_partials.cuh"

namespace gg::cuda {
namespace {

// What an edge adds to the gradient of z, from the sum over tangents of z' times their gradients.
template <Activation kind, class Real>
__device__ __forceinline__ Real to_z(Real z, Real slope, Real product, Real value_grad) {
  return RealTraits<Real>::add_apart(activation<kind, 2>(z) * product, slope * value_grad);
}

// One thread a row and pack of features; the slots are walked once a group of tangents.
template <class S, int N, int Kind, int Together>
struct PullRows {
  using Real = typename Accumulator<S>::Type;
  static constexpr Activation kKind = static_cast<Activation>(Kind);
  PullSweep p;
  Indices rowptr, neighbor, type;
  int64_t packs;

  __device__ __forceinline__ Pack<S, N> part(const void* rows, int64_t row, int64_t feature) const {
    return Pack<S, N>::load(static_cast<const S*>(rows) + row * p.features + feature);
  }
  __device__ __forceinline__ void write(void* rows, int64_t row, int64_t feature, const Real (&values)[N]) const {
    Pack<S, N> result;
#pragma unroll
    for (int v = 0; v < N; ++v) result.set(v, values[v]);
    result.store(static_cast<S*>(rows) + row * p.features + feature);
  }

  // Adds to `total` what the tangents [first, first + Together) give.
  __device__ __forceinline__ void add_group(int64_t i, int64_t feature, int64_t first, Real (&total)[N]) const {
    const bool from_value = p.value_grad && first == 0;
    const Pack<S, N> own = part(p.own, i, feature);
    Pack<S, N> moved[Together];
#pragma unroll
    for (int k = 0; k < Together; ++k) {
      moved[k] = Pack<S, N>{};
      if (first + k < p.count) moved[k] = part(p.own_along, (first + k) * p.rows + i, feature);
    }
    Real along_total[Together][N] = {};
    const int64_t end = rowptr[i + 1];
#pragma unroll 1
    for (int64_t s = rowptr[i]; s < end; ++s) {
      const int64_t j = neighbor[s], t = type ? type[s] : 0, target = p.by_source ? j : i;
      const Pack<S, N> other = part(p.other, j, feature), bias = part(p.bias, t, feature);
      Real z[N], slope[N], product[N] = {};
#pragma unroll
      for (int v = 0; v < N; ++v) {
        z[v] = own[v] + other[v] + bias[v];
        slope[v] = activation<kKind, 1>(z[v]);
      }
#pragma unroll
      for (int k = 0; k < Together; ++k) {
        if (first + k >= p.count) continue;
        const int64_t at = (first + k) * p.rows;
        const Pack<S, N> grad = part(p.tangent_grad, at + target, feature);
        const Pack<S, N> along = part(p.other_along, at + j, feature);
#pragma unroll
        for (int v = 0; v < N; ++v) {
          product[v] = RealTraits<Real>::add_apart(product[v], (moved[k][v] + along[v]) * grad[v]);
          along_total[k][v] = RealTraits<Real>::add_apart(along_total[k][v], slope[v] * grad[v]);
        }
      }
      if (!p.to_rows) continue;
      const Pack<S, N> value_grad = from_value ? part(p.value_grad, target, feature) : Pack<S, N>{};
#pragma unroll
      for (int v = 0; v < N; ++v)
        total[v] = RealTraits<Real>::add_apart(total[v], to_z<kKind>(z[v], slope[v], product[v], Real(value_grad[v])));
    }
    if (!p.to_along) return;
#pragma unroll
    for (int k = 0; k < Together; ++k)
      if (first + k < p.count) write(p.to_along, (first + k) * p.rows + i, feature, along_total[k]);
  }

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t i = item / packs, feature = item % packs * N;
    Real total[N] = {};
#pragma unroll 1
    for (int64_t first = 0; first < p.count; first += Together) add_group(i, feature, first, total);
    if (p.to_rows) write(p.to_rows, i, feature, total);
  }
};

// One block a chunk of rows, type and 32 features, as in message_sum.
template <class S, int Kind>
struct PullTypes {
  using Real = typename Accumulator<S>::Type;
  static constexpr Activation kKind = static_cast<Activation>(Kind);
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kRun = GG_MESSAGE_CHUNK / kWarps;
  static_assert(kRun * kWarps == GG_MESSAGE_CHUNK, "warps share a chunk equally");
  PullSweep p;
  Indices rowptr, neighbor, type;
  int64_t tiles;  // of 32 features

  __device__ __forceinline__ Real at(const void* rows, int64_t row, int64_t feature) const {
    return load_scalar(static_cast<const S*>(rows) + row * p.features + feature);
  }

  __device__ __forceinline__ Real add_run(int64_t first_row, int64_t wanted, int64_t feature) const {
    const int64_t end = first_row + kRun < p.rows ? first_row + kRun : p.rows;
    const Real bias = at(p.bias, wanted, feature);
    Real sum = 0;
#pragma unroll 1
    for (int64_t i = first_row; i < end; ++i) {
      const int64_t last = rowptr[i + 1];
      const Real own = at(p.own, i, feature), value_grad = p.value_grad ? at(p.value_grad, i, feature) : Real(0);
#pragma unroll 1
      for (int64_t s = rowptr[i]; s < last; ++s) {
        if ((type ? type[s] : 0) != wanted) continue;
        const int64_t j = neighbor[s];
        const Real z = own + at(p.other, j, feature) + bias;
        Real product = 0;
#pragma unroll 1
        for (int64_t k = 0; k < p.count; ++k) {
          const Real along = at(p.own_along, k * p.rows + i, feature) + at(p.other_along, k * p.rows + j, feature);
          product = RealTraits<Real>::add_apart(product, along * at(p.tangent_grad, k * p.rows + i, feature));
        }
        sum = RealTraits<Real>::add_apart(sum, to_z<kKind>(z, activation<kKind, 1>(z), product, value_grad));
      }
    }
    return sum;
  }

  __device__ __forceinline__ void operator()(int64_t block) const {
    __shared__ Real sums[kWarps][kWarp];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int64_t feature = block % tiles * kWarp + lane, rest = block / tiles;
    const int64_t wanted = rest % p.types, chunk = rest / p.types;
    sums[warp][lane] =
        feature < p.features ? add_run(chunk * GG_MESSAGE_CHUNK + warp * kRun, wanted, feature) : Real(0);
    __syncthreads();
    if (warp == 0 && feature < p.features) {
      Real total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += sums[w][lane];
      static_cast<Real*>(p.partial)[(chunk * p.types + wanted) * p.features + feature] = total;
    }
    __syncthreads();
  }
};

template <int Kind, int Together>
gg_status pull_rows(const PullSweep& p, int dtype, void* stream) {
  auto packed = [&](auto type) {
    return packable<typename decltype(type)::type>(p.features, p.own, p.other, p.bias, p.own_along, p.other_along,
                                                   p.value_grad, p.tangent_grad, static_cast<const void*>(p.to_rows),
                                                   static_cast<const void*>(p.to_along));
  };
  return with_pack<4>(dtype, packed, [&](auto type, auto width) {
    constexpr int N = decltype(width)::value;
    const int64_t packs = p.features / N;
    const PullRows<typename decltype(type)::type, N, Kind, Together> kernel{
        p, {p.edges.rowptr, p.index}, {p.edges.neighbor, p.index}, {p.edges.type, p.index}, packs};
    return launch_items("message_pull", p.rows * packs, stream, kernel);
  });
}

template <int Kind>
gg_status pull_types(const PullSweep& p, int dtype, void* stream) {
  return with_dtype(dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    using Real = typename Accumulator<S>::Type;
    const int64_t tiles = (p.features + kWarp - 1) / kWarp, size = p.types * p.features;
    const PullTypes<S, Kind> kernel{
        p, {p.edges.rowptr, p.index}, {p.edges.neighbor, p.index}, {p.edges.type, p.index}, tiles};
    if (gg_status status = launch_blocks("message_pull", p.chunks() * p.types * tiles, stream, kernel)) return status;
    const AddPartials<S> add{static_cast<const Real*>(p.partial), static_cast<S*>(p.to_types), p.chunks(), size};
    return launch_items("message_pull", size, stream, add);
  });
}

}  // namespace

gg_status message_pull(const gg_message_pull_params& p, void* stream) {
  return with_activation(p.activation, [&](auto kind) {
    return with_tangents<4>(p.count, [&](auto together) {
      constexpr int Kind = decltype(kind)::value, Together = decltype(together)::value;
      for (int by_source = 0; by_source < 2; ++by_source) {
        const PullSweep sweep(p, by_source != 0);
        if (sweep.to_types)
          if (gg_status status = pull_types<Kind>(sweep, p.dtype, stream)) return status;
        if (sweep.to_rows || sweep.to_along)
          if (gg_status status = pull_rows<Kind, Together>(sweep, p.dtype, stream)) return status;
      }
      return GG_OK;
    });
  });
}

}  // namespace gg::cuda
