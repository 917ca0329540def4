// What the CPU kernels of a step share: runs without noise, and sums in the order of GG_SUM_CHUNK.
#pragma once

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../noise/draw.h"
#include "affine.h"

#include <string.h>

namespace gg::GG_ISA {

static_assert(kRun == GG_SUM_CHUNK, "a run is a chunk of a sum");

// body(graph, first, count, null) as for_each_run's, but for all elements of a graph whatever their noise.
template <class Body>
GG_HD void for_each_plain_run(const Batch& batch, int64_t begin, int64_t end, Body&& body) {
  for (int64_t graph = begin; graph < end; ++graph) {
    const int64_t elements = batch.rows(graph) * batch.features;
    for (int64_t first = 0; first < elements; first += kRun)
      body(graph, first, static_cast<int>(elements - first < kRun ? elements - first : kRun), nullptr);
  }
}

// The sum of up to kRun values, over 32 lanes; there is room for zeros up to the next 32.
template <class Real>
static Real sum_of_run(Real* values, int count) {
  using Vector = typename Simd<Real>::Vector;
  constexpr int vectors = 32 / Simd<Real>::lanes;
  memset(values + count, 0, (-count & 31) * sizeof(Real));
  Vector sum[vectors] = {};
  for (int k = 0; k < count; k += 32)
    for (int v = 0; v < vectors; ++v) sum[v] += load(values + k + v * Simd<Real>::lanes);
  Real lane[32];
  memcpy(lane, sum, sizeof lane);
  return sum_of_lanes(lane);
}

// Work of a graph, for the thread pool.
static inline int64_t work_per_graph(int64_t graphs, int64_t rows, int64_t features, int64_t work) {
  return graphs > 0 ? work * (rows * features / graphs + 1) : 1;
}

template <class Body>
static inline auto with_terms(int terms, Body&& body) {
  switch (terms) {
    case 0:
      return body(Constant<0>{});
    case 1:
      return body(Constant<1>{});
    case 2:
      return body(Constant<2>{});
    case 3:
      return body(Constant<3>{});
    case 4:
      return body(Constant<4>{});
    case 5:
      return body(Constant<5>{});
    case 6:
      return body(Constant<6>{});
    case 7:
      return body(Constant<7>{});
    default:
      return body(Constant<8>{});
  }
}

// The terms of a step at the elements from `place` on, and their coefficients.
template <class S, int terms>
struct Terms {
  using Real = typename Affine<S>::Real;
  using Vector = typename Simd<S>::Vector;
  const S* at[terms > 0 ? terms : 1];
  Real coefficient[terms > 0 ? terms : 1];

  Terms(const Affine<S>& affine, int64_t graph, int64_t place) {
    for (int k = 0; k < terms; ++k) {
      at[k] = affine.term[k] + place;
      coefficient[k] = affine.coefficient_of(k, graph);
    }
  }
  template <class Tile>
  GG_MEMBER Vector sum(const Tile& tile, int v) const {
    Vector value{};
    for (int k = 0; k < terms; ++k) {
      const Vector part = coefficient[k] * tile.read(at[k], v);
      value = k > 0 ? value + part : part;
    }
    return value;
  }
};

}  // namespace gg::GG_ISA
