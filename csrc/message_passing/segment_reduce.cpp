#include "segment_reduce.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S>
static void reduce_rows(const gg_segment_reduce_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  const S* src = static_cast<const S*>(p.src);
  const Indices ptr{p.ptr, p.index};
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    for (int64_t s = first; s < last; ++s) {
      Vector sum[N] = {};
      for (int64_t r = ptr[s]; r < ptr[s + 1]; ++r)
        for (int v = 0; v < N; ++v) sum[v] += tile.read(src + r * p.features, v);
      const Real scale = reduce_scale<Real>(p.reduce, ptr[s + 1] - ptr[s]);
      for (int v = 0; v < N; ++v) tile.write(out + s * p.features, v, sum[v] * scale);
    }
  });
}

template <class S>
static void broadcast_rows(const gg_segment_broadcast_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  const S* src = static_cast<const S*>(p.src);
  const Indices ptr{p.ptr, p.index};
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    constexpr int N = decltype(tile)::vectors;
    for (int64_t s = first; s < last; ++s) {
      const Real scale = reduce_scale<Real>(p.reduce, ptr[s + 1] - ptr[s]);
      for (int v = 0; v < N; ++v) {
        auto value = tile.read(src + s * p.features, v) * scale;
        for (int64_t r = ptr[s]; r < ptr[s + 1]; ++r) tile.write(out + r * p.features, v, value);
      }
    }
  });
}

void segment_reduce(const gg_segment_reduce_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t first, int64_t last) { reduce_rows<typename decltype(dtype)::type>(p, first, last); };
    for_rows(p.segments, 8 * p.features, threads, body);
  });
}

void segment_broadcast(const gg_segment_broadcast_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const Indices ptr{p.ptr, p.index};
    S* out = static_cast<S*>(p.out);
    for (int64_t k = 0; k < ptr[0] * p.features; ++k) store_scalar(out + k, 0);
    for (int64_t k = ptr[p.segments] * p.features; k < p.rows * p.features; ++k) store_scalar(out + k, 0);
    auto body = [&](int64_t first, int64_t last) { broadcast_rows<typename decltype(dtype)::type>(p, first, last); };
    for_rows(p.segments, 8 * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
