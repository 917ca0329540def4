#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

// A sum of two arrays of which either may be missing.
template <class S>
struct Sum {
  const void *a, *b;

  template <class Tile>
  typename Tile::Vector read(const Tile& tile, int64_t first, int v) const {
    typename Tile::Vector sum{};
    if (a) sum = tile.read(static_cast<const S*>(a) + first, v);
    if (b) sum += tile.read(static_cast<const S*>(b) + first, v);
    return sum;
  }
};

template <class S, int Kind>
static void push(const gg_activate_push_params& p, int64_t first, int64_t last) {
  constexpr Activation kind = static_cast<Activation>(Kind);
  const Sum<S> z{p.x, p.y}, along{p.x_along, p.y_along}, skip{p.skip, nullptr}, skip_along{p.skip_along, nullptr};
  for_each_coarse_tile<S, 2>(last - first, [&](auto tile) {
    for (int v = 0; v < decltype(tile)::vectors; ++v) {
      const auto at = z.read(tile, first, v);
      if (p.value)
        tile.write(static_cast<S*>(p.value) + first, v, skip.read(tile, first, v) + rounded(activation<kind, 0>(at)));
      const auto slope = activation<kind, 1>(at);
      for (int64_t k = 0; k < p.count; ++k) {
        const int64_t row = k * p.size + first;
        tile.write(static_cast<S*>(p.tangent) + row, v,
                   skip_along.read(tile, row, v) + rounded(slope * along.read(tile, row, v)));
      }
    }
  });
}

template <class S, int Kind>
static void pull(const gg_activate_pull_params& p, int64_t first, int64_t last) {
  constexpr Activation kind = static_cast<Activation>(Kind);
  const Sum<S> z{p.x, p.y}, along{p.x_along, p.y_along}, value_grad{p.value_grad, nullptr};
  for_each_coarse_tile<S, 2>(last - first, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    for (int v = 0; v < decltype(tile)::vectors; ++v) {
      const Vector at = z.read(tile, first, v), slope = activation<kind, 1>(at);
      Vector product{};
      for (int64_t k = 0; k < p.count; ++k) {
        const int64_t row = k * p.size + first;
        const Vector grad = tile.read(static_cast<const S*>(p.tangent_grad) + row, v);
        if (p.to_along) tile.write(static_cast<S*>(p.to_along) + row, v, slope * grad);
        product += rounded(along.read(tile, row, v) * grad);
      }
      if (p.to_z)
        tile.write(static_cast<S*>(p.to_z) + first, v,
                   rounded(slope * value_grad.read(tile, first, v)) + rounded(activation<kind, 2>(at) * product));
    }
  });
}

void activate_push(const gg_activate_push_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      auto body = [&](int64_t first, int64_t last) {
        push<typename decltype(dtype)::type, decltype(kind)::value>(p, first, last);
      };
      for_rows(p.size, 16 + 2 * p.count, threads, body);
    });
  });
}

void activate_pull(const gg_activate_pull_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      auto body = [&](int64_t first, int64_t last) {
        pull<typename decltype(dtype)::type, decltype(kind)::value>(p, first, last);
      };
      for_rows(p.size, 16 + 4 * p.count, threads, body);
    });
  });
}

}  // namespace gg::GG_ISA
