#include "neighbor_reduce.h"

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"
#include "block_dot.h"
#include "block_sum.h"

namespace gg::GG_ISA {

// Where a term counts: the lanes whose arg is this edge.
template <class S, class Tile>
static inline typename RealTraits<typename Simd<S>::Vector>::Integer counts(const Tile& tile, const int64_t* arg, int v,
                                                                            int64_t edge) {
  using Integer = typename RealTraits<typename Simd<S>::Vector>::Integer;
  constexpr int lanes = Simd<S>::lanes;
  const int64_t* at = arg + tile.first + v * lanes;
  Integer mask{};
  if constexpr (Tile::partial) {
    for (int lane = 0; lane < tile.count; ++lane) mask[lane] = -(at[lane] == edge);
  } else {
    typename RealTraits<Integer>::Scalar found[lanes];
    for (int lane = 0; lane < lanes; ++lane) found[lane] = -(at[lane] == edge);
    __builtin_memcpy(&mask, found, sizeof mask);
  }
  return mask;
}

template <class S>
struct NeighborReduce {
  using Real = typename Accumulator<S>::Type;
  const gg_neighbor_reduce_params& p;
  const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index}, edge{p.edge, p.index};
  const S* x = static_cast<const S*>(p.x);
  S* out = static_cast<S*>(p.out);

  template <class Tile>
  GG_MEMBER void terms(const Tile& tile, const EdgeWeights<S, Tile>& weights, int64_t i, int64_t slot,
                       typename Tile::Vector (&term)[Tile::vectors]) const {
    const int64_t j = neighbor[slot], e = edge_of(edge, slot);
    for (int v = 0; v < Tile::vectors; ++v) {
      term[v] = tile.read(x + j * p.features, v);
      if (p.weight) term[v] *= weights.read(e, v);
      if (p.arg) term[v] = where(counts<S>(tile, p.arg + (p.arg_of_neighbor ? j : i) * p.features, v, e), term[v]);
    }
  }

  // Any row: those of more slots than a block holds, and sums of which not every term counts.
  void sum_row(int64_t i) const {
    const Real scale = reduce_scale<Real>(p.reduce, rowptr[i + 1] - rowptr[i]);
    for_each_tile<S>(p.features, [&](auto tile) {
      using Tile = decltype(tile);
      constexpr int N = Tile::vectors;
      const EdgeWeights<S, Tile> weights(p.weight, p.heads, p.features, tile);
      typename Tile::Vector sum[N] = {}, term[N];
      for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
        terms(tile, weights, i, s, term);
        for (int v = 0; v < N; ++v) sum[v] += rounded(term[v]);
      }
      for (int v = 0; v < N; ++v) tile.write(out + i * p.features, v, sum[v] * scale);
    });
  }

  void extreme_rows(int64_t first, int64_t last) const {
    for_each_tile<S>(p.features, [&](auto tile) {
      using Tile = decltype(tile);
      using Vector = typename Tile::Vector;
      using Integer = typename RealTraits<Vector>::Integer;
      constexpr int N = Tile::vectors, lanes = Simd<S>::lanes;
      const EdgeWeights<S, Tile> weights(p.weight, p.heads, p.features, tile);
      for (int64_t i = first; i < last; ++i) {
        const int64_t begin = rowptr[i], count = rowptr[i + 1] - begin;
        Vector best[N] = {}, term[N];
        Integer which[N] = {};  // slot of the row
        if (count > 0) terms(tile, weights, i, begin, best);
        for (int64_t k = 1; k < count; ++k) {
          terms(tile, weights, i, begin + k, term);
          for (int v = 0; v < N; ++v) {
            const Integer better = takes_over(p.reduce, term[v], best[v]);
            best[v] = better ? term[v] : best[v];
            which[v] = better ? Integer{} + static_cast<int32_t>(k) : which[v];
          }
        }
        for (int v = 0; v < N; ++v) {
          tile.write(out + i * p.features, v, best[v]);
          if (!p.out_arg) continue;
          int64_t* arg = p.out_arg + i * p.features + tile.first + v * lanes;
          for (int lane = 0; lane < (Tile::partial ? tile.count : lanes); ++lane)
            arg[lane] = count > 0 ? edge_of(edge, begin + which[v][lane]) : p.edges;
        }
      }
    });
  }

  void rows(int64_t first, int64_t last) const {
    if (p.reduce == GG_MAX || p.reduce == GG_MIN) return extreme_rows(first, last);
    if (p.arg) {
      for (int64_t i = first; i < last; ++i) sum_row(i);
      return;
    }
    const BlockSum<S, S> sum{
        x, static_cast<const S*>(p.weight), out, p.features, p.features, p.heads, p.reduce == GG_MEAN};
    for_each_block(
        {p.rowptr, p.neighbor, p.edge, p.index}, first, last,
        [&](const EdgeBlock& block) { sum.rows(block, block.edge); }, [&](int64_t row) { sum_row(row); });
  }
};

template <class S>
struct EdgeDot {
  using Real = typename Accumulator<S>::Type;
  using Vector = typename Simd<S>::Vector;
  const gg_edge_dot_params& p;
  const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index}, edge{p.edge, p.index};
  const int64_t width = p.heads > 0 ? p.features / p.heads : 0;

  template <class Tile>
  GG_MEMBER Vector product(const Tile& tile, const S* a, const S* b, const int64_t* arg, int v, int64_t e) const {
    const Vector value = tile.read(a, v) * tile.read(b, v);
    return arg ? where(counts<S>(tile, arg, v, e), value) : value;
  }

  GG_MEMBER void slot(int64_t i, int64_t j, int64_t e) const {
    const S* a = static_cast<const S*>(p.target) + i * p.features;
    const S* b = static_cast<const S*>(p.source) + j * p.features;
    const int64_t* arg = p.arg ? p.arg + (p.arg_of_neighbor ? j : i) * p.features : nullptr;
    S* out = static_cast<S*>(p.out) + e * p.heads;
    if (width == 1)
      return for_each_tile<S>(p.features, [&](auto tile) {
        for (int v = 0; v < decltype(tile)::vectors; ++v) tile.write(out, v, product(tile, a, b, arg, v, e));
      });
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t skip = h * width;
      Vector sum{};
      for_each_tile<S>(width, [&](auto tile) {
        for (int v = 0; v < decltype(tile)::vectors; ++v)
          sum += product(tile, a + skip, b + skip, arg ? arg + skip : nullptr, v, e);
      });
      store_scalar(out + h, sum_of_lanes(sum));
    }
  }

  // A few heads at a time, so that their sums stay in the first cache.
  void block_rows(const EdgeBlock& block) const {
    constexpr int64_t at_once = 8;
    Real sums[EdgeBlock::kSlots * at_once + Simd<Real>::lanes];
    for (int64_t head = 0; head < p.heads; head += at_once) {
      const int64_t heads = p.heads - head < at_once ? p.heads - head : at_once, skip = head * width;
      const BlockDot<S> dot{static_cast<const S*>(p.target) + skip, static_cast<const S*>(p.source) + skip, p.features,
                            heads, width};
      dot.rows(block, sums);
      for (int64_t s = 0; s < block.slots; ++s)
        for (int64_t h = 0; h < heads; ++h)
          store_scalar(static_cast<S*>(p.out) + block.edge[s] * p.heads + head + h, sums[s * heads + h]);
    }
  }

  void rows(int64_t first, int64_t last) const {
    for_each_block(
        {p.rowptr, p.neighbor, p.edge, p.index}, first, last,
        [&](const EdgeBlock& block) {
          if (width != 1 && !p.arg) return block_rows(block);
          for (int64_t s = 0; s < block.slots; ++s)
            slot(block.first_row + block.row[s], block.neighbor[s], block.edge[s]);
        },
        [&](int64_t i) {
          for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) slot(i, neighbor[s], edge_of(edge, s));
        });
  }
};

void neighbor_reduce(const gg_neighbor_reduce_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    const NeighborReduce<typename decltype(dtype)::type> reduce{p};
    auto body = [&](int64_t first, int64_t last) { reduce.rows(first, last); };
    for_rows(p.rows, 4 * p.features, threads, body);
  });
}

void edge_dot(const gg_edge_dot_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    const EdgeDot<typename decltype(dtype)::type> dot{p};
    auto body = [&](int64_t first, int64_t last) { dot.rows(first, last); };
    for_rows(p.rows, 4 * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
