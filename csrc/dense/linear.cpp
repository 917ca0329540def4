#include "linear.h"

#include "../common/dispatch.h"
#include "../common/row_block.h"
#include "../common/rows.h"

namespace gg::GG_ISA {

// A block of R rows and one tile of columns stays in registers for the whole sum over k.
template <int R, class S, class Tile>
static GG_MEMBER void block(const gg_linear_params& p, const Tile& tile, int64_t row) {
  using Vector = typename Tile::Vector;
  constexpr int N = Tile::vectors;
  const S* x = static_cast<const S*>(p.x) + row * p.inner;
  const S* weight = static_cast<const S*>(p.weight);
  S* out = static_cast<S*>(p.out) + row * p.outer;
  Vector sum[R][N];
  for (int v = 0; v < N; ++v) {
    Vector start = p.bias ? tile.read(static_cast<const S*>(p.bias), v) : Vector{};
    for (int r = 0; r < R; ++r) sum[r][v] = start;
  }
  for (int64_t k = 0; k < p.inner; ++k) {
    Vector w[N];
    for (int v = 0; v < N; ++v) w[v] = tile.read(weight + k * p.outer, v);
    for (int r = 0; r < R; ++r) {
      const auto scalar = load_scalar(x + r * p.inner + k);
      for (int v = 0; v < N; ++v) sum[r][v] = multiply_add(scalar, w[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < N; ++v) tile.write(out + r * p.outer, v, sum[r][v]);
}

void linear(const gg_linear_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto body = [&](int64_t first, int64_t last) {
      for_each_product_tile<S>(p.outer, [&](auto tile) {
        int64_t row = first;
        for (; row + 6 <= last; row += 6) block<6, S>(p, tile, row);
        for (; row < last; ++row) block<1, S>(p, tile, row);
      });
    };
    for_rows(p.rows, p.inner * p.outer / 8, threads, body);
  });
}

}  // namespace gg::GG_ISA
