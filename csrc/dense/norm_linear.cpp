#include "../common/dispatch.h"
#include "../common/row_block.h"
#include "../common/rows.h"

namespace gg::GG_ISA {

template <class S>
static void forward(const gg_norm_linear_params& p, int64_t first, int64_t last) {
  const S* x = static_cast<const S*>(p.x);
  const S* weight = static_cast<const S*>(p.weight);
  const S* bias = static_cast<const S*>(p.bias);
  S* out = static_cast<S*>(p.out);
  const int64_t stride = padded<S>(p.inner);
  alignas(64) S normal[kBlockRows * GG_NORM_WIDTH];
  for (int64_t start = first; start < last; start += kBlockRows) {
    const int rows = static_cast<int>(last - start < kBlockRows ? last - start : kBlockRows);
    for (int r = 0; r < rows; ++r) normalise(x + (start + r) * p.inner, p.inner, normal + r * stride);
    for_each_product_tile<S>(p.outer, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector sum[R][N];
        for (int v = 0; v < N; ++v) {
          const auto begin = bias ? tile.read(bias, v) : typename Simd<S>::Vector{};
          for (int r = 0; r < R; ++r) sum[r][v] = begin;
        }
        add_product<R, S>(tile, normal + row * stride, stride, weight, p.inner, p.outer, sum);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) tile.write(out + (start + row + r) * p.outer, v, sum[r][v]);
      });
    });
  }
}

template <class S>
static void pull(const gg_norm_linear_pull_params& p, int64_t first, int64_t last) {
  const S* x = static_cast<const S*>(p.x);
  const S* weight = static_cast<const S*>(p.weight);
  const S* grad = static_cast<const S*>(p.grad);
  const int64_t stride = padded<S>(p.inner);
  alignas(64) S normal[kBlockRows * GG_NORM_WIDTH], to_normal[kBlockRows * GG_NORM_WIDTH];
  S scale[kBlockRows];
  for (int64_t start = first; start < last; start += kBlockRows) {
    const int rows = static_cast<int>(last - start < kBlockRows ? last - start : kBlockRows);
    for (int r = 0; r < rows; ++r) {
      scale[r] = normalise(x + (start + r) * p.inner, p.inner, normal + r * stride);
      __builtin_memcpy(static_cast<S*>(p.normal) + (start + r) * p.inner, normal + r * stride, p.inner * sizeof(S));
    }
    for_each_product_tile<S>(p.inner, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      for_each_register_block(rows, [&](auto count, int row) {
        constexpr int R = decltype(count)::value;
        typename Simd<S>::Vector sum[R][N] = {};
        add_product<R, S>(tile, grad + (start + row) * p.outer, p.outer, weight, p.outer, p.inner, sum);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < N; ++v) tile.write(to_normal + (row + r) * stride, v, sum[r][v]);
      });
    });
    for (int r = 0; r < rows; ++r)
      normalise_pull<S>(to_normal + r * stride, normal + r * stride, scale[r], nullptr, p.inner,
                        static_cast<S*>(p.to_x) + (start + r) * p.inner);
  }
}

void norm_linear(const gg_norm_linear_params& p, int threads) {
  with_float_or_double(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto body = [&](int64_t first, int64_t last) { forward<S>(p, first, last); };
    for_rows(p.rows, p.inner * p.outer / 8, threads, body);
  });
}

void norm_linear_pull(const gg_norm_linear_pull_params& p, int threads) {
  with_float_or_double(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto body = [&](int64_t first, int64_t last) { pull<S>(p, first, last); };
    for_rows(p.rows, p.inner * p.outer / 8, threads, body);
  });
}

}  // namespace gg::GG_ISA
