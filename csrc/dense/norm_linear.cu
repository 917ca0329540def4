#include "../common/cuda_kernels.h"
#include "norm.cuh"

namespace gg::cuda {
namespace {

// One block a tile of outputs.
template <class Tile>
struct NormLinear {
  using S = typename Tile::S;
  using Real = typename Tile::Real;
  Matrix<S> x, weight;
  const S* bias;
  S* out;
  int64_t column_tiles;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t tile) const {
    __shared__ typename Tile::Operands operands;
    __shared__ Norms<Real, Tile::kRows> norms;
    const int64_t first_row = tile / column_tiles * Tile::kRows, first_column = tile % column_tiles * Tile::kColumns;
    const int64_t column = first_column + Tile::column(), left = weight.columns - column;
    __syncthreads();
    norms.find(x, first_row);
    typename Tile::Sums sum;
#pragma unroll
    for (int c = 0; c < kAcross; ++c) {
      const Real start = bias && c < left ? load_scalar(bias + column + c) : Real(0);
#pragma unroll
      for (int r = 0; r < Tile::kDown; ++r) sum[r][c] = start;
    }
    Tile::add(operands, x, norms, weight, first_row, first_column, sum);
#pragma unroll
    for (int r = 0; r < Tile::kDown; ++r) {
      const int64_t row = first_row + Tile::row(r);
      if (row < x.rows) write_across(out + row * weight.columns + column, left, packed, sum[r]);
    }
  }
};

// One block a tile of rows. The means of a row are sums over all its columns: where these are one tile, that waits in
// registers; where they are more, the product is made once for the means and again for the results.
template <class Tile>
struct NormPull {
  using S = typename Tile::S;
  using Real = typename Tile::Real;
  Matrix<S> x, grad, weight;
  const S* skip;
  S *to_x, *normal;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t tile) const {
    __shared__ typename Tile::Operands operands;
    __shared__ Norms<Real, Tile::kRows> norms;
    const int64_t first_row = tile * Tile::kRows, width = x.columns;
    const int column_tiles = static_cast<int>((width + Tile::kColumns - 1) / Tile::kColumns);
    __syncthreads();
    norms.find(x, first_row);
    __syncthreads();
    Real mean[Tile::kDown] = {}, slope[Tile::kDown] = {};
    const int turns = column_tiles == 1 ? 1 : 2 * column_tiles;
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
      const int64_t first_column = int64_t{turn % column_tiles} * Tile::kColumns;
      const int64_t column = first_column + Tile::column(), left = width - column;
      typename Tile::Sums sum = {};
      Tile::add(operands, grad, Unchanged{}, weight, first_row, first_column, sum);
#pragma unroll
      for (int r = 0; r < Tile::kDown; ++r) {
        const int row = Tile::row(r);
        if (first_row + row >= x.rows) continue;
        const int64_t at = (first_row + row) * width + column;
        Real own[kAcross];
        read_across(x.at + at, left, packed, own);
#pragma unroll
        for (int c = 0; c < kAcross; ++c) own[c] = norms(own[c], row);
        if (turn < column_tiles) {
#pragma unroll
          for (int c = 0; c < kAcross; ++c) {
            mean[r] += sum[r][c];
            slope[r] += sum[r][c] * own[c];
          }
        }
        if (turn + 1 == column_tiles) {
          mean[r] = total(mean[r]) / static_cast<Real>(width);
          slope[r] = total(slope[r]) / static_cast<Real>(width);
        }
        if (turns > 1 && turn < column_tiles) continue;
        Real kept[kAcross] = {};
        if (skip) read_across(skip + at, left, packed, kept);
#pragma unroll
        for (int c = 0; c < kAcross; ++c)
          kept[c] += gg::norm_pull(sum[r][c], own[c], mean[r], slope[r], norms.scale[row]);
        write_across(to_x + at, left, packed, kept);
        write_across(normal + at, left, packed, own);
      }
    }
  }

 private:
  // Over the threads of a row.
  static __device__ __forceinline__ Real total(Real sum) {
    constexpr int kBits = Tile::kThreadsAcross == 4    ? 2
                          : Tile::kThreadsAcross == 8  ? 3
                          : Tile::kThreadsAcross == 16 ? 4
                                                       : 5;
    const Group group{kBits};
#pragma unroll
    for (int distance = Tile::kThreadsAcross / 2; distance > 0; distance /= 2) sum += group.exchange(sum, distance);
    return sum;
  }
};

}  // namespace

gg_status norm_linear(const gg_norm_linear_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    return with_product_tile<S>(p.outer, [&](auto type) {
      using Tile = typename decltype(type)::type;
      const int64_t column_tiles = tiles_of(p.outer, Tile::kColumns);
      const NormLinear<Tile> kernel{{p.x, p.rows, p.inner},
                                    {p.weight, p.inner, p.outer},
                                    static_cast<const S*>(p.bias),
                                    static_cast<S*>(p.out),
                                    column_tiles,
                                    packable<S, kAcross>(p.outer, p.out)};
      return launch_blocks("norm_linear", tiles_of(p.rows, Tile::kRows) * column_tiles, stream, kernel);
    });
  });
}

gg_status norm_pull(const char* operation, const gg_norm_linear_pull_params& p, const void* skip, void* stream) {
  if (p.inner == 0) return GG_OK;
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto launch = [&](auto type) {
      using Tile = typename decltype(type)::type;
      const bool packed = packable<S, kAcross>(p.inner, p.x, skip, static_cast<const void*>(p.to_x),
                                               static_cast<const void*>(p.normal));
      const NormPull<Tile> kernel{{p.x, p.rows, p.inner},
                                  {p.grad, p.rows, p.outer},
                                  {p.weight, p.outer, p.inner},
                                  static_cast<const S*>(skip),
                                  static_cast<S*>(p.to_x),
                                  static_cast<S*>(p.normal),
                                  packed};
      return launch_blocks(operation, tiles_of(p.rows, Tile::kRows), stream, kernel);
    };
    if (p.inner <= 32) return launch(Type<ProductTile<S, 64, 32>>{});
    // A double takes two registers.
    if constexpr (sizeof(S) == 8) {
      return launch(Type<ProductTile<S, 32, 64>>{});
    } else {
      return p.inner <= 64 ? launch(Type<ProductTile<S, 64, 64>>{}) : launch(Type<ProductTile<S, 32, 128>>{});
    }
  });
}

gg_status norm_linear_pull(const gg_norm_linear_pull_params& p, void* stream) {
  return norm_pull("norm_linear_pull", p, nullptr, stream);
}

}  // namespace gg::cuda
