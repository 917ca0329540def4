#include "softmax.h"

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"

#include <limits>

namespace gg::GG_ISA {

template <class S>
static void softmax_row(const S* x, S* out, int64_t features) {
  using Real = typename Accumulator<S>::Type;
  using Vector = typename Simd<S>::Vector;
  Real highest = load_scalar(x);
  if (features <= Simd<S>::lanes) {
    for (int64_t f = 1; f < features; ++f) highest = softmax_max(highest, load_scalar(x + f));
  } else {
    const Vector first = Vector{} + highest;
    Vector top = first;
    for_each_tile<S>(features, [&](auto tile) {
      for (int v = 0; v < decltype(tile)::vectors; ++v) top = softmax_max(top, tile.read_or(x, v, first));
    });
    for (int lane = 0; lane < Simd<S>::lanes; ++lane) highest = softmax_max(highest, static_cast<Real>(top[lane]));
  }
  const Vector shift = Vector{} + highest;
  const Vector nothing = shift - std::numeric_limits<Real>::infinity();
  Vector sums{};
  for_each_tile<S>(features, [&](auto tile) {
    for (int v = 0; v < decltype(tile)::vectors; ++v) sums += softmax_term(tile.read_or(x, v, nothing), shift);
  });
  Real sum = 0;
  const int used = features < Simd<S>::lanes ? static_cast<int>(features) : Simd<S>::lanes;
  for (int lane = 0; lane < used; ++lane) sum += sums[lane];
  for_each_tile<S>(features, [&](auto tile) {
    for (int v = 0; v < decltype(tile)::vectors; ++v) tile.write(out, v, softmax_term(tile.read(x, v), shift) / sum);
  });
}

void softmax(const gg_softmax_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    if (p.features == 0) return;
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        softmax_row(static_cast<const S*>(p.x) + row * p.features, static_cast<S*>(p.out) + row * p.features,
                    p.features);
    };
    for_rows(p.rows, 32 * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
