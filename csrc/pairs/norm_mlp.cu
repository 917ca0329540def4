#include "../common/cuda_kernels.h"
#include "../dense/norm.cuh"
#include "cursor.h"

namespace gg::cuda {
namespace {

constexpr Activation kSilu = Activation::silu;

// The atoms of the rows of a tile.
template <int Rows>
struct Ends {
  int64_t first[Rows], second[Rows];

  __device__ __forceinline__ void find(const gg_pairs& pairs, int64_t first_row, int64_t rows) {
    for (int r = threadIdx.x; r < Rows && first_row + r < rows; r += kThreads) {
      const PairCursor at(pairs, first_row + r);
      first[r] = at.first;
      second[r] = at.second;
    }
  }
};

// What met is made of.
template <class S>
struct Met {
  using Real = typename Accumulator<S>::Type;
  Matrix<S> x, own, logits, of_logits;
  const S *first_bias, *ends;
  gg_pairs pairs;
  bool packed;

  explicit Met(const gg_norm_mlp_params& p)
      : x(p.x, p.rows, p.width),
        own(p.own, p.width, p.inner),
        logits(p.logits, p.rows, p.heads),
        of_logits(p.of_logits, p.heads, p.inner),
        first_bias(static_cast<const S*>(p.first_bias)),
        ends(static_cast<const S*>(p.ends)),
        pairs(p.pairs),
        packed(packable<S, kAcross>(p.inner, p.first_bias, p.ends)) {}

  // A tile of it, by all threads of a block together.
  template <class Tile>
  __device__ __forceinline__ void find(typename Tile::Operands& operands, const Norms<Real, Tile::kRows>& norms,
                                       const Ends<Tile::kRows>& at, int64_t first_row, int64_t first_column,
                                       typename Tile::Sums& met) const {
    const int64_t column = first_column + Tile::column(), left = own.columns - column;
    Real bias[kAcross] = {};
    if (first_bias) read_across(first_bias + column, left, packed, bias);
#pragma unroll
    for (int r = 0; r < Tile::kDown; ++r) {
      const int row = Tile::row(r);
      Real one[kAcross] = {}, other[kAcross] = {};
      if (ends && first_row + row < x.rows) {
        read_across(ends + at.first[row] * own.columns + column, left, packed, one);
        read_across(ends + at.second[row] * own.columns + column, left, packed, other);
      }
#pragma unroll
      for (int c = 0; c < kAcross; ++c) met[r][c] = bias[c] + (one[c] + other[c]);
    }
    if (ends) Tile::add(operands, logits, Unchanged{}, of_logits, first_row, first_column, met);
    Tile::add(operands, x, norms, own, first_row, first_column, met);
  }
};

// One block a tile of outputs. silu(met) goes through shared memory, kDepth columns at a time, and is made once for
// every tile of columns.
template <class Tile>
struct NormMlp {
  using S = typename Tile::S;
  using Real = typename Tile::Real;
  using Hidden = ProductTile<S, Tile::kRows, kDepth>;
  Met<S> met;
  Matrix<S> weight;
  const S* bias;
  S* out;
  int64_t column_tiles;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t tile) const {
    __shared__ typename Hidden::Operands operands;
    __shared__ typename Tile::Operands after;
    __shared__ Norms<Real, Tile::kRows> norms;
    __shared__ Ends<Tile::kRows> ends;
    const int64_t first_row = tile / column_tiles * Tile::kRows, first_column = tile % column_tiles * Tile::kColumns;
    const int64_t column = first_column + Tile::column(), left = weight.columns - column;
    __syncthreads();
    norms.find(met.x, first_row);
    if (met.ends) ends.find(met.pairs, first_row, met.x.rows);
    __syncthreads();
    typename Tile::Sums sum = {};
#pragma unroll 1
    for (int64_t k = 0; k < weight.rows; k += kDepth) {
      typename Hidden::Sums hidden;
      met.template find<Hidden>(operands, norms, ends, first_row, k, hidden);
#pragma unroll
      for (int r = 0; r < Hidden::kDown; ++r)
#pragma unroll
        for (int c = 0; c < kAcross; ++c)
          after.x[Hidden::row(r)][Hidden::column() + c] = activation<kSilu, 0>(hidden[r][c]);
      fill<kDepth, Tile::kColumns>(after.weight, weight, k, first_column, Unchanged{});
      __syncthreads();
      Tile::multiply(after.x, after.weight, weight.rows - k, sum);
    }
    Real added[kAcross] = {};
    if (bias) read_across(bias + column, left, packed, added);
#pragma unroll
    for (int r = 0; r < Tile::kDown; ++r) {
      const int64_t row = first_row + Tile::row(r), at = row * weight.columns + column;
      if (row >= met.x.rows) continue;
      Real value[kAcross];
      read_across(met.x.at + at, left, packed, value);
#pragma unroll
      for (int c = 0; c < kAcross; ++c) value[c] += added[c] + sum[r][c];
      write_across(out + at, left, packed, value);
    }
  }
};

// One block a tile of met: silu of it, and its gradient.
template <class Tile>
struct MetPull {
  using S = typename Tile::S;
  using Real = typename Tile::Real;
  Met<S> met;
  Matrix<S> grad, weight;  // the weight transposed
  S *hidden, *to_met;
  int64_t column_tiles;
  bool packed;

  __device__ __forceinline__ void operator()(int64_t tile) const {
    __shared__ typename Tile::Operands operands;
    __shared__ Norms<Real, Tile::kRows> norms;
    __shared__ Ends<Tile::kRows> ends;
    const int64_t first_row = tile / column_tiles * Tile::kRows, first_column = tile % column_tiles * Tile::kColumns;
    const int64_t column = first_column + Tile::column(), left = weight.columns - column;
    __syncthreads();
    norms.find(met.x, first_row);
    if (met.ends) ends.find(met.pairs, first_row, met.x.rows);
    __syncthreads();
    typename Tile::Sums at_met, slope = {};
    met.template find<Tile>(operands, norms, ends, first_row, first_column, at_met);
    Tile::add(operands, grad, Unchanged{}, weight, first_row, first_column, slope);
#pragma unroll
    for (int r = 0; r < Tile::kDown; ++r) {
      const int64_t row = first_row + Tile::row(r), at = row * weight.columns + column;
      if (row >= met.x.rows) continue;
      Real value[kAcross];
#pragma unroll
      for (int c = 0; c < kAcross; ++c) {
        value[c] = activation<kSilu, 0>(at_met[r][c]);
        slope[r][c] *= activation<kSilu, 1>(at_met[r][c]);
      }
      write_across(hidden + at, left, packed, value);
      write_across(to_met + at, left, packed, slope[r]);
    }
  }
};

// One block a molecule and some columns; a thread adds what the pairs of an atom give it, in order.
template <class S, int N>
struct EndsPull {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kPacks = 8;  // neighbouring, of a block
  const S* to_met;
  S* to_ends;
  gg_pairs pairs;
  int64_t packs, tiles;

  __device__ __forceinline__ void operator()(int64_t block) const {
    const int64_t g = block / tiles, pack = block % tiles * kPacks + threadIdx.x % kPacks;
    if (pack >= packs) return;
    const int64_t* ptr = static_cast<const int64_t*>(pairs.ptr) + g;
    const int64_t n = ptr[1] - ptr[0], width = packs * N;
    const S* from = to_met + static_cast<const int64_t*>(pairs.pair_ptr)[g] * width + pack * N;
    for (int64_t i = threadIdx.x / kPacks; i < n; i += kThreads / kPacks) {
      Real sum[N] = {};
#pragma unroll 4
      for (int64_t j = 0; j < n; ++j) {
        if (j == i) continue;
        const Pack<S, N> part = Pack<S, N>::load(from + pair_place(i, j, n) * width);
#pragma unroll
        for (int v = 0; v < N; ++v) sum[v] += part[v];
      }
      Pack<S, N> result;
#pragma unroll
      for (int v = 0; v < N; ++v) result.set(v, sum[v]);
      result.store(to_ends + (ptr[0] + i) * width + pack * N);
    }
  }
};

gg_status ends_pull(const gg_norm_mlp_pull_params& p, void* stream) {
  const void* to_ends = p.to_ends;
  auto packed = [&](auto type) {
    return packable<typename decltype(type)::type>(p.of.inner, static_cast<const void*>(p.to_met), to_ends);
  };
  return with_pack(p.of.dtype, packed, [&](auto type, auto pack) {
    using S = typename decltype(type)::type;
    using Kernel = EndsPull<S, decltype(pack)::value>;
    const int64_t packs = p.of.inner / decltype(pack)::value, tiles = tiles_of(packs, Kernel::kPacks);
    const Kernel kernel{static_cast<const S*>(p.to_met), static_cast<S*>(p.to_ends), p.of.pairs, packs, tiles};
    return launch_blocks("norm_mlp_pull", p.of.pairs.molecules * tiles, stream, kernel);
  });
}

template <class S>
gg_status met_pull(const gg_norm_mlp_pull_params& p, void* stream) {
  using Tile = ProductTile<S, 64, 32>;
  const int64_t column_tiles = tiles_of(p.of.inner, Tile::kColumns);
  const bool packed =
      packable<S, kAcross>(p.of.inner, static_cast<const void*>(p.hidden), static_cast<const void*>(p.to_met));
  const MetPull<Tile> kernel{Met<S>(p.of),
                             {p.grad, p.of.rows, p.of.width},
                             {p.weight_t, p.of.width, p.of.inner},
                             static_cast<S*>(p.hidden),
                             static_cast<S*>(p.to_met),
                             column_tiles,
                             packed};
  return launch_blocks("norm_mlp_pull", tiles_of(p.of.rows, Tile::kRows) * column_tiles, stream, kernel);
}

}  // namespace

gg_status norm_mlp(const gg_norm_mlp_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto launch = [&](auto type) {
      using Tile = typename decltype(type)::type;
      const int64_t column_tiles = tiles_of(p.width, Tile::kColumns);
      const NormMlp<Tile> kernel{Met<S>(p),
                                 {p.weight, p.inner, p.width},
                                 static_cast<const S*>(p.bias),
                                 static_cast<S*>(p.out),
                                 column_tiles,
                                 packable<S, kAcross>(p.width, p.x, p.bias, static_cast<const void*>(p.out))};
      return launch_blocks("norm_mlp", tiles_of(p.rows, Tile::kRows) * column_tiles, stream, kernel);
    };
    // A double takes twice the room.
    if constexpr (sizeof(S) < 8)
      if (p.width > 64) return launch(Type<ProductTile<S, 32, 128>>{});
    return launch(Type<ProductTile<S, 32, 64>>{});
  });
}

gg_status norm_mlp_pull(const gg_norm_mlp_pull_params& p, void* stream) {
  const gg_norm_mlp_params& of = p.of;
  auto launch = [&](auto dtype) { return met_pull<typename decltype(dtype)::type>(p, stream); };
  if (gg_status status = with_dtype(of.dtype, launch)) return status;
  const gg_norm_linear_pull_params rows{of.x,    p.own_t,  p.to_met, p.to_x,  p.normal,
                                        of.rows, of.width, of.inner, of.dtype};
  if (gg_status status = norm_pull("norm_mlp_pull", rows, p.grad, stream)) return status;
  if (!of.ends) return GG_OK;
  const gg_linear_params logits{p.to_met, p.of_logits_t, nullptr, p.to_logits, of.rows, of.inner, of.heads, of.dtype};
  if (gg_status status = linear(logits, stream)) return status;
  return ends_pull(p, stream);
}

}  // namespace gg::cuda
