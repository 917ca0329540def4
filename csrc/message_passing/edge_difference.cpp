#include "edge_difference.h"

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "rbf.h"

namespace gg::GG_ISA {

template <class S>
static void difference_dots(const gg_edge_difference_dot_params& p, int64_t first, int64_t last) {
  const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index};
  const S *a = static_cast<const S*>(p.a), *b = static_cast<const S*>(p.b);
  for (int64_t i = first; i < last; ++i) {
    const int64_t own = i * p.features;
    for (int64_t e = rowptr[i]; e < rowptr[i + 1]; ++e) {
      const int64_t other = neighbor[e] * p.features;
      const auto dot = difference_dot(a + own, a + other, b + own, b + other, p.features);
      store_scalar(static_cast<S*>(p.out) + e, p.root ? square_root(dot) : dot);
    }
  }
}

template <class S>
static void laplacian_rows(const gg_edge_laplacian_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  const S *x = static_cast<const S*>(p.x), *weight = static_cast<const S*>(p.weight);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    for (int64_t i = first; i < last; ++i) {
      Vector own[N], sum[N] = {};
      for (int v = 0; v < N; ++v) own[v] = tile.read(x + i * p.features, v);
      for (int way = 0; way < 2; ++way) {
        const Indices rowptr{p.rowptr[way], p.index}, neighbor{p.neighbor[way], p.index}, edge{p.edge[way], p.index};
        for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
          const S* other = x + neighbor[s] * p.features;
          const Real w = load_scalar(weight + edge_of(edge, s));
          for (int v = 0; v < N; ++v) sum[v] += w * (own[v] - tile.read(other, v));
        }
      }
      for (int v = 0; v < N; ++v) tile.write(static_cast<S*>(p.out) + i * p.features, v, sum[v]);
    }
  });
}

void edge_difference_dot(const gg_edge_difference_dot_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t first, int64_t last) { difference_dots<typename decltype(dtype)::type>(p, first, last); };
    for_rows(p.rows, 8 * p.features, threads, body);
  });
}

void edge_laplacian(const gg_edge_laplacian_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t first, int64_t last) { laplacian_rows<typename decltype(dtype)::type>(p, first, last); };
    for_rows(p.rows, 8 * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
