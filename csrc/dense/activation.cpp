#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

void activate(const gg_activate_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    with_activation(p.activation, [&](auto kind) {
      with_order(p.order, [&](auto order) {
        auto body = [&](int64_t first, int64_t last) {
          const S* x = static_cast<const S*>(p.x) + first;
          S* out = static_cast<S*>(p.out) + first;
          for_each_tile<S>(last - first, [&](auto tile) {
            for (int v = 0; v < decltype(tile)::vectors; ++v) {
              constexpr auto which = static_cast<Activation>(decltype(kind)::value);
              tile.write(out, v, activation<which, decltype(order)::value>(tile.read(x, v)));
            }
          });
        };
        for_rows(p.count, 16, threads, body);
      });
    });
  });
}

}  // namespace gg::GG_ISA
