// The weights of an edge, of any number of heads, as the vectors of a tile. CPU kernels only.
#pragma once

#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S, class Tile>
struct EdgeWeights {
  using Real = typename Accumulator<S>::Type;
  using Vector = typename Simd<S>::Vector;
  static constexpr int lanes = Simd<S>::lanes;
  // The tile may be of another storage type, as wide.
  using Columns = gg::Tile<S, Tile::vectors, Tile::partial>;
  enum Kind { per_edge, per_vector, per_feature, per_lane };

  const S* weight;
  int64_t heads;
  Kind kind;
  Tile tile;
  int32_t head[Tile::vectors][lanes];  // of each lane

  EdgeWeights(const void* weights, int64_t heads_, int64_t features, Tile tile_)
      : weight(static_cast<const S*>(weights)), heads(heads_), tile(tile_) {
    const int64_t width = heads > 0 ? features / heads : 1;
    kind = heads == 1 ? per_edge : width == 1 ? per_feature : per_vector;
    if (kind != per_vector) return;
    for (int v = 0; v < Tile::vectors; ++v)
      for (int lane = 0; lane < lanes; ++lane) {
        const int filled = !Tile::partial || lane < tile.count ? lane : 0;
        head[v][lane] = static_cast<int32_t>((tile.first + v * lanes + filled) / width);
        if (head[v][lane] != head[v][0]) kind = per_lane;
      }
  }

  // Of a null weight, never called.
  GG_MEMBER Vector read(int64_t edge, int v) const {
    const S* row = weight + edge * heads;
    if (kind == per_edge) return Vector{} + load_scalar(row);
    if (kind == per_vector) return Vector{} + load_scalar(row + head[v][0]);
    if (kind == per_feature) return Columns{tile.first, tile.count}.read(row, v);
    Real value[lanes];
    for (int lane = 0; lane < lanes; ++lane) value[lane] = load_scalar(row + head[v][lane]);
    return load(value);
  }
};

}  // namespace gg::GG_ISA
