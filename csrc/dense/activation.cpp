#include "../common/activation_terms.h"
#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S, int Kind, int Order>
static void products(const gg_activate_params& p, int64_t first, int64_t last) {
  constexpr int kTerms = Order + 1;
  const S* x[kTerms];
  S* out[Order + 1];
  bool lower = false;
  for (int m = 0; m < kTerms; ++m) x[m] = p.x[m] ? static_cast<const S*>(p.x[m]) + first : nullptr;
  for (int m = 0; m <= Order; ++m) {
    out[m] = p.out[m] ? static_cast<S*>(p.out[m]) + first : nullptr;
    lower = lower || (m > 0 && out[m]);
  }
  for_each_coarse_tile<S, 2>(last - first, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    for (int v = 0; v < decltype(tile)::vectors; ++v) {
      Vector z[kTerms], term[Order + 1];
      for (int m = 0; m < kTerms; ++m) z[m] = x[m] ? tile.read(x[m], v) : Vector{};
      activation_terms<Kind, Order>(z, lower, term);
      for (int m = 0; m <= Order; ++m)
        if (out[m]) tile.write(out[m], v, term[m]);
    }
  });
}

void activate(const gg_activate_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      with_order(p.order, [&](auto order) {
        auto body = [&](int64_t first, int64_t last) {
          products<typename decltype(dtype)::type, decltype(kind)::value, decltype(order)::value>(p, first, last);
        };
        for_rows(p.count, 16, threads, body);
      });
    });
  });
}

}  // namespace gg::GG_ISA
