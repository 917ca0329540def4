#include "rbf.h"

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"
#include "edge_difference.h"

namespace gg::GG_ISA {

// Runs body(dtype, whether there is a power), so that the common power 0 costs nothing.
template <class Body>
static void with_power(int dtype, int power, Body&& body) {
  with_dtype(dtype, [&](auto type) {
    if (power == 0) return body(type, Constant<0>{});
    body(type, Constant<1>{});
  });
}

template <class S, bool kPowered>
static void rbf_row_sums(const gg_rbf_rows_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index};
  const S *weight = static_cast<const S*>(p.weight), *distance = static_cast<const S*>(p.distance);
  const S* x = static_cast<const S*>(p.x);
  for_each_tile<S>(p.bases, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    Vector center[N], gamma[N];
    for (int v = 0; v < N; ++v) {
      center[v] = tile.read(static_cast<const S*>(p.centers), v);
      gamma[v] = tile.read(static_cast<const S*>(p.gamma), v);
    }
    for (int64_t i = first; i < last; ++i) {
      Vector sum[N] = {};
      for (int64_t e = rowptr[i]; e < rowptr[i + 1]; ++e) {
        const Real d = distance
                           ? load_scalar(distance + e)
                           : square_root(difference_dot(x + i * p.features, x + neighbor[e] * p.features,
                                                        x + i * p.features, x + neighbor[e] * p.features, p.features));
        const Real w = weight ? load_scalar(weight + e) : Real(1);
        for (int v = 0; v < N; ++v) sum[v] += w * rbf_term<kPowered>(Vector{} + d, center[v], gamma[v], p.power);
      }
      for (int v = 0; v < N; ++v) tile.write(static_cast<S*>(p.out) + i * p.bases, v, sum[v]);
    }
  });
}

template <class S, bool kPowered>
static void rbf_edge_sums(const gg_rbf_edges_params& p, int64_t first, int64_t last) {
  using Real = typename Accumulator<S>::Type;
  using Vector = typename Simd<S>::Vector;
  const Indices rowptr{p.rowptr, p.index};
  const S *centers = static_cast<const S*>(p.centers), *gamma = static_cast<const S*>(p.gamma);
  for (int64_t i = first; i < last; ++i) {
    const S* rows = static_cast<const S*>(p.rows_of) + i * p.bases;
    for (int64_t e = rowptr[i]; e < rowptr[i + 1]; ++e) {
      const Vector d = Vector{} + load_scalar(static_cast<const S*>(p.distance) + e);
      Vector sum{};
      for_each_tile<S>(p.bases, [&](auto tile) {
        for (int v = 0; v < decltype(tile)::vectors; ++v)
          sum += tile.read(rows, v) * rbf_term<kPowered>(d, tile.read(centers, v), tile.read(gamma, v), p.power);
      });
      Real total = 0;
      for (int lane = 0; lane < Simd<S>::lanes; ++lane) total += sum[lane];
      store_scalar(static_cast<S*>(p.out) + e, total);
    }
  }
}

void rbf_rows(const gg_rbf_rows_params& p, int threads) {
  with_power(p.dtype, p.power, [&](auto dtype, auto powered) {
    auto body = [&](int64_t first, int64_t last) {
      rbf_row_sums<typename decltype(dtype)::type, decltype(powered)::value>(p, first, last);
    };
    for_rows(p.rows, 32 * p.bases, threads, body);
  });
}

void rbf_edges(const gg_rbf_edges_params& p, int threads) {
  with_power(p.dtype, p.power, [&](auto dtype, auto powered) {
    auto body = [&](int64_t first, int64_t last) {
      rbf_edge_sums<typename decltype(dtype)::type, decltype(powered)::value>(p, first, last);
    };
    for_rows(p.rows, 32 * p.bases, threads, body);
  });
}

}  // namespace gg::GG_ISA
