// Weighted sums over the neighbours of a block of rows. CPU kernels only.
#pragma once

#include "edge_block.h"
#include "edge_weights.h"

namespace gg::GG_ISA {

// W is the type of the weights.
template <class S, class W>
struct BlockSum {
  using Real = typename Accumulator<S>::Type;
  enum class Weights { none, per_edge, any };

  const S* x;        // rows of `stride`, of which `features` are summed
  const W* weights;  // rows of `heads`, or null for 1
  S* out;            // like x
  int64_t stride, features, heads;
  bool mean;

  // The weights of slot s are row weight_row[s] of them.
  void rows(const EdgeBlock& block, const int64_t* weight_row) const {
    for_each_tile<S>(features, [&](auto tile) {
      if (!weights) return columns<Weights::none>(block, weight_row, tile);
      if (heads == 1) return columns<Weights::per_edge>(block, weight_row, tile);
      columns<Weights::any>(block, weight_row, tile);
    });
  }

 private:
  // A sum is written after each of its terms; the last that is written is the whole one. A function of its own, so
  // that its loop has all the registers.
  template <Weights kind, class Tile>
  __attribute__((noinline)) void columns(const EdgeBlock& block, const int64_t* weight_row, Tile tile) const {
    using Vector = typename Tile::Vector;
    using Integer = typename RealTraits<Vector>::Integer;
    constexpr int N = Tile::vectors;
    const Tile own{0, tile.count};
    const EdgeWeights<W, Tile> any(weights, kind == Weights::any ? heads : 1, features, tile);
    const W* weight = weights;
    const int64_t step = stride, slots = block.slots;
    const S* from = x + tile.first;
    S* to = out + block.first_row * step + tile.first;
    const bool divide = mean;
    Vector sum[N] = {};
    int32_t count = 0;
    for (int64_t s = 0; s < slots; ++s) {
      const S* row = from + block.neighbor[s] * step;
      S* result = to + block.row[s] * step;
      const Integer same = Integer{} + block.same_row[s];
      for (int v = 0; v < N; ++v) {
        sum[v] = where(same, sum[v]);
        if constexpr (kind == Weights::none) sum[v] += own.read(row, v);
        if constexpr (kind == Weights::per_edge) sum[v] += load_scalar(weight + weight_row[s]) * own.read(row, v);
        if constexpr (kind == Weights::any) sum[v] += any.read(weight_row[s], v) * own.read(row, v);
      }
      if (divide) {
        count = (count & block.same_row[s]) + 1;
        const Real scale = Real(1) / static_cast<Real>(count);
        for (int v = 0; v < N; ++v) own.write(result, v, sum[v] * scale);
      } else {
        for (int v = 0; v < N; ++v) own.write(result, v, sum[v]);
      }
    }
    for (int64_t k = 0; k < block.empty_rows; ++k)
      for (int v = 0; v < N; ++v) own.write(to + block.empty[k] * step, v, Vector{});
  }
};

}  // namespace gg::GG_ISA
