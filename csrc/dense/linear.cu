#include "../common/cuda_kernels.h"
#include "product.cuh"

namespace gg::cuda {
namespace {

// One block a tile of outputs.
template <class Tile>
struct Linear {
  using S = typename Tile::S;
  using Real = typename Tile::Real;
  Matrix<S> x, weight;
  const S* bias;
  S* out;
  int64_t column_tiles;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t tile) const {
    __shared__ typename Tile::Operands operands;
    const int64_t first_row = tile / column_tiles * Tile::kRows, first_column = tile % column_tiles * Tile::kColumns;
    const int64_t column = first_column + Tile::column(), left = weight.columns - column;
    typename Tile::Sums sum;
#pragma unroll
    for (int c = 0; c < kAcross; ++c) {
      const Real start = bias && c < left ? load_scalar(bias + column + c) : Real(0);
#pragma unroll
      for (int r = 0; r < Tile::kDown; ++r) sum[r][c] = start;
    }
    Tile::add(operands, x, Unchanged{}, weight, first_row, first_column, sum);
#pragma unroll
    for (int r = 0; r < Tile::kDown; ++r) {
      const int64_t row = first_row + Tile::row(r);
      if (row < x.rows) write_across(out + row * weight.columns + column, left, packed, sum[r]);
    }
  }
};

}  // namespace

gg_status linear(const gg_linear_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    return with_product_tile<S>(p.outer, [&](auto type) {
      using Tile = typename decltype(type)::type;
      const int64_t column_tiles = tiles_of(p.outer, Tile::kColumns);
      const Linear<Tile> kernel{{p.x, p.rows, p.inner},
                                {p.weight, p.inner, p.outer},
                                static_cast<const S*>(p.bias),
                                static_cast<S*>(p.out),
                                column_tiles,
                                packable<S, kAcross>(p.outer, p.out)};
      return launch_blocks("linear", tiles_of(p.rows, Tile::kRows) * column_tiles, stream, kernel);
    });
  });
}

}  // namespace gg::cuda
