#include "../common/dispatch.h"
#include "../common/row_block.h"
#include "../common/rows.h"
#include "cursor.h"

namespace gg::GG_ISA {

constexpr Activation kSilu = Activation::silu;

// The atoms of the rows of a block; the cursor is left behind its last row.
struct Ends {
  int64_t first[kBlockRows], second[kBlockRows];
  void fill(PairCursor& cursor, int rows, bool more) {
    for (int r = 0; r < rows; ++r) {
      first[r] = cursor.first;
      second[r] = cursor.second;
      if (more || r + 1 < rows) cursor.next();
    }
  }
};

// met without x^ own, of the rows from `start + row` on.
template <int R, class S, class Tile>
static GG_MEMBER void begin_met(const gg_norm_mlp_params& p, const Tile& tile, const Ends& at, int64_t start, int row,
                                typename Tile::Vector (&sum)[R][Tile::vectors]) {
  const S* bias = static_cast<const S*>(p.first_bias);
  const S* ends = static_cast<const S*>(p.ends);
  for (int v = 0; v < Tile::vectors; ++v) {
    const auto begin = bias ? tile.read(bias, v) : typename Tile::Vector{};
    for (int r = 0; r < R; ++r) sum[r][v] = begin;
  }
  if (!ends) return;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < Tile::vectors; ++v)
      sum[r][v] += tile.read(ends + at.first[row + r] * p.inner, v) + tile.read(ends + at.second[row + r] * p.inner, v);
  add_product<R, S>(tile, static_cast<const S*>(p.logits) + (start + row) * p.heads, p.heads,
                    static_cast<const S*>(p.of_logits), p.heads, p.inner, sum);
}

template <class S>
static void forward(const gg_norm_mlp_params& p, int64_t first, int64_t last) {
  if (first >= last) return;
  const S* x = static_cast<const S*>(p.x);
  const S* bias = static_cast<const S*>(p.bias);
  const int64_t stride = padded<S>(p.width), inner_stride = padded<S>(p.inner);
  alignas(64) S normal[kBlockRows * GG_NORM_WIDTH], hidden[kBlockRows * GG_NORM_WIDTH];
  Ends at;
  PairCursor cursor(p.pairs, first);
  for (int64_t start = first; start < last; start += kBlockRows) {
    const int rows = static_cast<int>(last - start < kBlockRows ? last - start : kBlockRows);
    if (p.ends) at.fill(cursor, rows, start + rows < last);
    for (int r = 0; r < rows; ++r) normalise(x + (start + r) * p.width, p.width, normal + r * stride);
    for_each_product_tile<S>(p.inner, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector sum[R][N];
        begin_met<R, S>(p, tile, at, start, row, sum);
        add_product<R, S>(tile, normal + row * stride, stride, static_cast<const S*>(p.own), p.width, p.inner, sum);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) tile.write(hidden + (row + r) * inner_stride, v, activation<kSilu, 0>(sum[r][v]));
      });
    });
    for_each_product_tile<S>(p.width, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector sum[R][N];
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) {
            sum[r][v] = tile.read(x + (start + row + r) * p.width, v);
            if (bias) sum[r][v] += tile.read(bias, v);
          }
        add_product<R, S>(tile, hidden + row * inner_stride, inner_stride, static_cast<const S*>(p.weight), p.inner,
                          p.width, sum);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) tile.write(static_cast<S*>(p.out) + (start + row + r) * p.width, v, sum[r][v]);
      });
    });
  }
}

template <class S>
static GG_MEMBER void add_to(S* out, const S* row, int64_t width) {
  for (int64_t f = 0; f < width; ++f) out[f] += row[f];
}

template <class S>
static void pull(const gg_norm_mlp_pull_params& p, int64_t first, int64_t last) {
  if (first >= last) return;
  const gg_norm_mlp_params& of = p.of;
  const S* x = static_cast<const S*>(of.x);
  const S* grad = static_cast<const S*>(p.grad);
  S* to_met = static_cast<S*>(p.to_met);
  const int64_t width = of.width, inner = of.inner, stride = padded<S>(width);
  alignas(64) S normal[kBlockRows * GG_NORM_WIDTH], to_normal[kBlockRows * GG_NORM_WIDTH];
  S scale[kBlockRows];
  Ends at;
  PairCursor cursor(of.pairs, first);
  for (int64_t start = first; start < last; start += kBlockRows) {
    const int rows = static_cast<int>(last - start < kBlockRows ? last - start : kBlockRows);
    if (of.ends) at.fill(cursor, rows, start + rows < last);
    for (int r = 0; r < rows; ++r) {
      scale[r] = normalise(x + (start + r) * width, width, normal + r * stride);
      __builtin_memcpy(static_cast<S*>(p.normal) + (start + r) * width, normal + r * stride, width * sizeof(S));
    }
    for_each_product_tile<S>(inner, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector met[R][N], slope[R][N] = {};
        begin_met<R, S>(of, tile, at, start, row, met);
        add_product<R, S>(tile, normal + row * stride, stride, static_cast<const S*>(of.own), width, inner, met);
        add_product<R, S>(tile, grad + (start + row) * width, width, static_cast<const S*>(p.weight_t), width, inner,
                          slope);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) {
            const int64_t place = (start + row + r) * inner;
            tile.write(static_cast<S*>(p.hidden) + place, v, activation<kSilu, 0>(met[r][v]));
            tile.write(to_met + place, v, slope[r][v] * activation<kSilu, 1>(met[r][v]));
          }
      });
    });
    const S* slopes = to_met + start * inner;
    for_each_product_tile<S>(width, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector sum[R][N] = {};
        add_product<R, S>(tile, slopes + row * inner, inner, static_cast<const S*>(p.own_t), inner, width, sum);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) tile.write(to_normal + (row + r) * stride, v, sum[r][v]);
      });
    });
    for (int r = 0; r < rows; ++r)
      normalise_pull<S>(to_normal + r * stride, normal + r * stride, scale[r], grad + (start + r) * width, width,
                        static_cast<S*>(p.to_x) + (start + r) * width);
    if (!of.ends) continue;
    for_each_product_tile<S>(of.heads, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector sum[R][N] = {};
        add_product<R, S>(tile, slopes + row * inner, inner, static_cast<const S*>(p.of_logits_t), inner, of.heads,
                          sum);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v)
            tile.write(static_cast<S*>(p.to_logits) + (start + row + r) * of.heads, v, sum[r][v]);
      });
    });
    for (int r = 0; r < rows; ++r) {
      add_to(static_cast<S*>(p.to_ends) + at.first[r] * inner, slopes + r * inner, inner);
      add_to(static_cast<S*>(p.to_ends) + at.second[r] * inner, slopes + r * inner, inner);
    }
  }
}

void norm_mlp(const gg_norm_mlp_params& p, int threads) {
  with_float_or_double(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto body = [&](int64_t first, int64_t last) { forward<S>(p, first, last); };
    for_rows(p.rows, p.width * p.inner / 4, threads, body);
  });
}

void norm_mlp_pull(const gg_norm_mlp_pull_params& p, int threads) {
  with_float_or_double(p.of.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const int64_t work = p.of.width * p.of.inner / 2;
    if (!p.of.ends) {
      auto body = [&](int64_t first, int64_t last) { pull<S>(p, first, last); };
      for_rows(p.of.rows, work, threads, body);
      return;
    }
    // Molecule by molecule: no two threads add to one atom.
    const int64_t* ptr = static_cast<const int64_t*>(p.of.pairs.ptr);
    const int64_t* pair_ptr = static_cast<const int64_t*>(p.of.pairs.pair_ptr);
    auto body = [&](int64_t first, int64_t last) {
      S* to_ends = static_cast<S*>(p.to_ends);
      for (int64_t k = ptr[first] * p.of.inner; k < ptr[last] * p.of.inner; ++k) to_ends[k] = 0;
      pull<S>(p, pair_ptr[first], pair_ptr[last]);
    };
    const int64_t molecules = p.of.pairs.molecules;
    for_rows(molecules, work * (p.of.rows / (molecules > 0 ? molecules : 1) + 1), threads, body);
  });
}

}  // namespace gg::GG_ISA
