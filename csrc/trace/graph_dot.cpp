#include "graph_dot.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"

#include <algorithm>

namespace gg::GG_ISA {

static int64_t mean_elements(int64_t rows, int64_t segments, int64_t features) {
  return (segments > 0 ? rows / segments + 1 : 1) * features;
}

template <class S>
static void dots(const gg_graph_dot_params& p, int64_t segment) {
  const Indices ptr(p.ptr, p.index);
  const int64_t size = p.rows * p.features, first = ptr[segment] * p.features;
  const int64_t count = ptr[segment + 1] * p.features - first;
  S* out = static_cast<S*>(p.out) + segment;
  for (int64_t k = 0; k < p.count_a; ++k) {
    for (int64_t m = 0; m < p.count_b; ++m, out += p.segments) {
      RunningDot<S> dot;
      dot.add(static_cast<const S*>(p.a) + k * size + first, static_cast<const S*>(p.b) + m * size + first, count);
      store_scalar(out, dot.total());
    }
  }
}

template <class S>
static void combine(const gg_graph_combine_params& p, int64_t segment) {
  const Indices ptr(p.ptr, p.index);
  const int64_t size = p.rows * p.features, first = ptr[segment] * p.features;
  const int64_t count = ptr[segment + 1] * p.features - first;
  for (int64_t k = 0; k < p.count; ++k) {
    const S* weight = static_cast<const S*>(p.weight) + k * p.terms * p.segments + segment;
    S* out = static_cast<S*>(p.out) + k * size + first;
    for_each_tile<S>(count, [&](auto tile) {
      constexpr int N = decltype(tile)::vectors;
      typename Simd<S>::Vector sum[N] = {};
      const S* b = static_cast<const S*>(p.b) + first;
      for (int64_t m = 0; m < p.terms; ++m, b += size) {
        const auto scale = load_scalar(weight + m * p.segments);
        for (int v = 0; v < N; ++v) sum[v] += scale * tile.read(b, v);
      }
      for (int v = 0; v < N; ++v) tile.write(out, v, sum[v]);
    });
  }
}

void graph_dot(const gg_graph_dot_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t g = first; g < last; ++g) dots<typename decltype(dtype)::type>(p, g);
    };
    for_rows(p.segments, mean_elements(p.rows, p.segments, p.features) * p.count_a * p.count_b, threads, body);
  });
}

void graph_combine(const gg_graph_combine_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const Indices ptr(p.ptr, p.index);
    const int64_t size = p.rows * p.features;
    const int64_t before = ptr[0] * p.features, behind = ptr[p.segments] * p.features;
    for (int64_t k = 0; k < p.count; ++k) {
      S* out = static_cast<S*>(p.out) + k * size;
      std::fill(out, out + before, S{});
      std::fill(out + behind, out + size, S{});
    }
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t g = first; g < last; ++g) combine<S>(p, g);
    };
    for_rows(p.segments, mean_elements(p.rows, p.segments, p.features) * p.count * (1 + p.terms), threads, body);
  });
}

}  // namespace gg::GG_ISA
