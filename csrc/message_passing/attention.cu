#include "attention.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

#include <limits>

namespace gg::cuda {
namespace {

constexpr int kInFlight = 4;  // slots whose rows are loaded before the first is used

// One group of threads a row and head, in one pass: sums are kept relative to the highest logit so far, and scaled
// down when a higher one comes. Each member has a pack of the values; values wider than the group are done in turns.
template <class S, int N>
struct Attention {
  using Real = typename Accumulator<S>::Type;
  static constexpr Real kLowest = -std::numeric_limits<Real>::infinity();
  gg_neighbor_attention_params p;
  Indices rowptr, neighbor;
  int64_t packs, value_packs;  // of a head
  Group group;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row_head = item >> group.bits, row = row_head / p.heads, head = row_head % p.heads;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S* q = static_cast<const S*>(p.q) + row_head * p.width;
    const S* k = static_cast<const S*>(p.k) + head * p.width;
    const S* v = static_cast<const S*>(p.v) + head * p.value_width;
    const S* bias = static_cast<const S*>(p.bias) + head;
    const Real scale = static_cast<Real>(p.scale);
#pragma unroll 1
    for (int64_t turn = 0; turn < value_packs; turn += group.size()) {
      const int64_t mine = turn + group.lane();
      Real top = kLowest, total = 0, sum[N] = {};
#pragma unroll 1
      for (int64_t s = first; s < last; s += kInFlight) {
        int64_t j[kInFlight];
        Real logit[kInFlight] = {};
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) j[u] = neighbor[s + u];
#pragma unroll 1
        for (int64_t pack = group.lane(); pack < packs; pack += group.size()) {
          const Pack<S, N> a = Pack<S, N>::load(q + pack * N);
          Pack<S, N> b[kInFlight];
#pragma unroll
          for (int u = 0; u < kInFlight; ++u)
            if (s + u < last) b[u] = Pack<S, N>::load(k + j[u] * p.heads * p.width + pack * N);
#pragma unroll
          for (int u = 0; u < kInFlight; ++u)
            if (s + u < last)
#pragma unroll
              for (int lane = 0; lane < N; ++lane) logit[u] += a[lane] * b[u][lane];
        }
        for (int distance = group.size() / 2; distance > 0; distance /= 2)
#pragma unroll
          for (int u = 0; u < kInFlight; ++u) logit[u] += group.exchange(logit[u], distance);
        Pack<S, N> value[kInFlight];
        Real higher_top = top;
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) {
            if (mine < value_packs) value[u] = Pack<S, N>::load(v + j[u] * p.heads * p.value_width + mine * N);
            logit[u] *= scale;
            if (p.bias) logit[u] += load_scalar(bias + (s + u) * p.heads);
            higher_top = higher(higher_top, logit[u]);
          }
        const Real shift = shift_of(higher_top), rescale = exp_(top - shift);
        top = higher_top;
        total *= rescale;
#pragma unroll
        for (int lane = 0; lane < N; ++lane) sum[lane] *= rescale;
#pragma unroll
        for (int u = 0; u < kInFlight; ++u)
          if (s + u < last) {
            const Real term = exp_(logit[u] - shift);
            total += term;
            if (mine < value_packs)
#pragma unroll
              for (int lane = 0; lane < N; ++lane) sum[lane] += term * value[u][lane];
          }
      }
      if (mine < value_packs) {
        Pack<S, N> result;
#pragma unroll
        for (int lane = 0; lane < N; ++lane) result.set(lane, first < last ? sum[lane] / total : Real(0));
        result.store(static_cast<S*>(p.out) + row_head * p.value_width + mine * N);
      }
    }
  }
};

}  // namespace

gg_status neighbor_attention(const gg_neighbor_attention_params& p, void* stream) {
  auto packed = [&](auto type) {
    using S = typename decltype(type)::type;
    return packable<S>(p.width, p.q, p.k) && packable<S>(p.value_width, p.v, p.out);
  };
  return with_pack(p.dtype, packed, [&](auto type, auto pack) {
    constexpr int N = decltype(pack)::value;
    const int64_t packs = p.width / N, value_packs = p.value_width / N;
    const Group group = Group::of(packs > value_packs ? packs : value_packs);
    const Attention<typename decltype(type)::type, N> kernel{p,     {p.rowptr, p.index}, {p.neighbor, p.index},
                                                             packs, value_packs,         group};
    return launch_items("neighbor_attention", p.rows * p.heads * group.size(), stream, kernel);
  });
}

}  // namespace gg::cuda
