#include "message_push.h"

#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

// One thread a row, pack of features and group of tangents.
template <class S, int N, int Kind, int Together>
struct MessagePush {
  using Real = typename Accumulator<S>::Type;
  static constexpr Activation kKind = static_cast<Activation>(Kind);
  gg_message_push_params p;
  TangentRows where;
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

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t feature = item % packs * N, rest = item / packs, r = rest % p.rows;
    const int64_t first = rest / p.rows * Together;
    const int64_t i = where.node(r), begin = rowptr[i], end = rowptr[i + 1], own = where.of_target(r);
    const bool with_value = p.value && first == 0;
    const Pack<S, N> target = part(p.target, i, feature);
    Pack<S, N> moved[Together];
#pragma unroll
    for (int k = 0; k < Together; ++k) {
      moved[k] = Pack<S, N>{};
      if (own >= 0 && first + k < p.count) moved[k] = part(p.target_along, (first + k) * p.target_rows + own, feature);
    }
    Real value[N] = {}, total[Together][N] = {};
#pragma unroll 1
    for (int64_t s = begin; s < end; ++s) {
      const int64_t j = neighbor[s], t = type ? type[s] : 0, from = where.of_source(r, s - begin, j);
      if (own < 0 && from < 0) continue;
      const Pack<S, N> source = part(p.source, j, feature), bias = part(p.bias, t, feature);
      Pack<S, N> other[Together];
#pragma unroll
      for (int k = 0; k < Together; ++k) {
        other[k] = Pack<S, N>{};
        if (from >= 0 && first + k < p.count)
          other[k] = part(p.source_along, (first + k) * p.source_rows + from, feature);
      }
#pragma unroll
      for (int v = 0; v < N; ++v) {
        const Real z = target[v] + source[v] + bias[v], slope = activation<kKind, 1>(z);
        if (with_value) value[v] = RealTraits<Real>::add_apart(value[v], activation<kKind, 0>(z));
#pragma unroll
        for (int k = 0; k < Together; ++k)
          total[k][v] = RealTraits<Real>::add_apart(total[k][v], slope * (moved[k][v] + other[k][v]));
      }
    }
    if (with_value) write(p.value, r, feature, value);
#pragma unroll
    for (int k = 0; k < Together; ++k)
      if (first + k < p.count) write(p.tangent, (first + k) * p.rows + r, feature, total[k]);
  }
};

}  // namespace

gg_status message_push(const gg_message_push_params& p, void* stream) {
  auto packed = [&](auto type) {
    return packable<typename decltype(type)::type>(p.features, p.target, p.source, p.bias, p.target_along,
                                                   p.source_along, static_cast<const void*>(p.value),
                                                   static_cast<const void*>(p.tangent));
  };
  return with_activation(p.activation, [&](auto kind) {
    return with_tangents<4>(p.count, [&](auto together) {
      return with_pack<4>(p.dtype, packed, [&](auto type, auto width) {
        constexpr int N = decltype(width)::value, Together = decltype(together)::value;
        const int64_t packs = p.features / N, groups = (p.count + Together - 1) / Together;
        const MessagePush<typename decltype(type)::type, N, decltype(kind)::value, Together> kernel{
            p, TangentRows(p), {p.edges.rowptr, p.index}, {p.edges.neighbor, p.index}, {p.edges.type, p.index}, packs};
        return launch_items("message_push", groups * p.rows * packs, stream, kernel);
      });
    });
  });
}

}  // namespace gg::cuda
