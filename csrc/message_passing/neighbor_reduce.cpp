#include "neighbor_reduce.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S>
static void reduce_rows(const gg_neighbor_reduce_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  const S* x = static_cast<const S*>(p.x);
  const S* weight = static_cast<const S*>(p.weight);
  const Indices rowptr{p.rowptr, p.index};
  const Indices neighbor{p.neighbor, p.index};
  const Indices edge{p.edge, p.index};
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    for (int64_t i = first; i < last; ++i) {
      Vector sum[N] = {};
      for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
        const S* row = x + neighbor[s] * p.features;
        if (weight) {
          const Real w = load_scalar(weight + edge_of(edge, s));
          for (int v = 0; v < N; ++v) sum[v] += w * tile.read(row, v);
        } else {
          for (int v = 0; v < N; ++v) sum[v] += tile.read(row, v);
        }
      }
      const Real scale = reduce_scale<Real>(p.reduce, rowptr[i + 1] - rowptr[i]);
      for (int v = 0; v < N; ++v) tile.write(out + i * p.features, v, sum[v] * scale);
    }
  });
}

template <class S>
static void dot_rows(const gg_edge_dot_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  const S* target = static_cast<const S*>(p.target);
  const S* source = static_cast<const S*>(p.source);
  const Indices rowptr{p.rowptr, p.index};
  const Indices neighbor{p.neighbor, p.index};
  const Indices edge{p.edge, p.index};
  S* out = static_cast<S*>(p.out);
  for (int64_t i = first; i < last; ++i) {
    const S* a = target + i * p.features;
    for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
      const S* b = source + neighbor[s] * p.features;
      typename Simd<S>::Vector sum{};
      for_each_tile<S>(p.features, [&](auto tile) {
        for (int v = 0; v < decltype(tile)::vectors; ++v) sum += tile.read(a, v) * tile.read(b, v);
      });
      Real total = 0;
      for (int lane = 0; lane < Simd<S>::lanes; ++lane) total += sum[lane];
      store_scalar(out + edge_of(edge, s), total);
    }
  }
}

void neighbor_reduce(const gg_neighbor_reduce_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t first, int64_t last) { reduce_rows<typename decltype(dtype)::type>(p, first, last); };
    for_rows(p.rows, 4 * p.features, threads, body);
  });
}

void edge_dot(const gg_edge_dot_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t first, int64_t last) { dot_rows<typename decltype(dtype)::type>(p, first, last); };
    for_rows(p.rows, 4 * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
