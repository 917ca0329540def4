// Blocks of rows in fast memory: brought to mean 0 and variance 1, and multiplied with a matrix.
#pragma once

#include "../dense/norm.h"
#include "simd.h"

namespace gg::GG_ISA {

// So many rows are worked on together, and so many of these in registers.
constexpr int kBlockRows = 48;
constexpr int kRegisterRows = 6;

template <class S>
constexpr int64_t padded(int64_t width) {
  return (width + Simd<S>::lanes - 1) / Simd<S>::lanes * Simd<S>::lanes;
}

// Covers [0, features) with tiles as wide as kRegisterRows sums of them, the columns of a matrix and a factor fit the
// registers.
template <class S, class Body>
GG_HD void for_each_product_tile(int64_t features, Body&& body) {
#if defined(__AVX512F__)
  for_each_tile<S>(features, body);
#else
  constexpr int lanes = Simd<S>::lanes;
  int64_t f = 0;
  for (; f + 2 * lanes <= features; f += 2 * lanes) body(Tile<S, 2, false>{f, 0});
  if (f + lanes <= features) {
    body(Tile<S, 1, false>{f, 0});
    f += lanes;
  }
  if (f < features) body(Tile<S, 1, true>{f, static_cast<int>(features - f)});
#endif
}

template <int N>
struct RowCount {
  static constexpr int value = N;
};

// body(how many rows, the first of them) over [0, rows).
template <class Body>
GG_HD void for_each_register_block(int rows, Body&& body) {
  int row = 0;
  for (; row + kRegisterRows <= rows; row += kRegisterRows) body(RowCount<kRegisterRows>{}, row);
  for (; row + 2 <= rows; row += 2) body(RowCount<2>{}, row);
  if (row < rows) body(RowCount<1>{}, row);
}

// sum[r] += x[r] weight for the columns of a tile, in the order of k.
template <int R, class S, class Tile>
GG_HD void add_product(const Tile& tile, const S* x, int64_t stride, const S* weight, int64_t inner, int64_t outer,
                       typename Tile::Vector (&sum)[R][Tile::vectors]) {
  for (int64_t k = 0; k < inner; ++k) {
    typename Tile::Vector w[Tile::vectors];
    for (int v = 0; v < Tile::vectors; ++v) w[v] = tile.read(weight + k * outer, v);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < Tile::vectors; ++v) sum[r][v] = x[r * stride + k] * w[v] + sum[r][v];
  }
}

// A row to mean 0 and variance 1; returns what it was multiplied with. `out` has padded room.
template <class S>
static GG_MEMBER S normalise(const S* x, int64_t width, S* out) {
  using Vector = typename Simd<S>::Vector;
  constexpr int lanes = Simd<S>::lanes;
  const auto filled = [&](int64_t f) { return static_cast<int>(width - f < lanes ? width - f : lanes); };
  Vector sum{};
  for (int64_t f = 0; f < width; f += lanes) sum += load_partial(x + f, filled(f));
  const S mean = sum_of_lanes(sum) / static_cast<S>(width);
  Vector square{};
  for (int64_t f = 0; f < width; f += lanes) {
    const Tile<S, 1, true> tile{f, filled(f)};
    const Vector off = tile.filled(load_partial(x + f, filled(f)) - mean);
    square += off * off;
    store(out + f, off);
  }
  const S scale = norm_scale(sum_of_lanes(square), width);
  for (int64_t f = 0; f < width; f += lanes) store(out + f, load(out + f) * scale);
  return scale;
}

// The transpose of that: out = skip + scale (g - mean(g) - normal mean(g normal)), skip null for 0.
template <class S>
static GG_MEMBER void normalise_pull(const S* g, const S* normal, S scale, const S* skip, int64_t width, S* out) {
  using Vector = typename Simd<S>::Vector;
  constexpr int lanes = Simd<S>::lanes;
  const auto filled = [&](int64_t f) { return static_cast<int>(width - f < lanes ? width - f : lanes); };
  Vector sum{}, along{};
  for (int64_t f = 0; f < width; f += lanes) {
    const Vector part = load_partial(g + f, filled(f));
    sum += part;
    along += part * load(normal + f);
  }
  const S mean = sum_of_lanes(sum) / static_cast<S>(width), slope = sum_of_lanes(along) / static_cast<S>(width);
  for (int64_t f = 0; f < width; f += lanes) {
    Vector value = norm_pull(load_partial(g + f, filled(f)), load(normal + f), mean, slope, scale);
    if (skip) value += load_partial(skip + f, filled(f));
    store_partial(out + f, value, filled(f));
  }
}

}  // namespace gg::GG_ISA
