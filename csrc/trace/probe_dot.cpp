#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../noise/draw.h"
#include "graph_dot.h"

namespace gg::GG_ISA {

// body(g, graph id, first element, elements) for every graph
template <class Body>
static void for_graphs(const gg_noise_params& p, int64_t rows, int threads, Body&& body) {
  const int64_t* ptr = static_cast<const int64_t*>(p.ptr);
  const int64_t* graph_id = static_cast<const int64_t*>(p.graph_id);
  auto range = [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g)
      body(g, graph_id ? graph_id[g] : g, ptr[g] * p.features, (ptr[g + 1] - ptr[g]) * p.features);
  };
  for_rows(p.graphs, 16 * (p.graphs > 0 ? rows / p.graphs + 1 : 1) * p.features, threads, range);
}

void probe_dot(const gg_probe_dot_params& p, int threads) {
  with_dtype(p.probe.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    for_graphs(p.probe, p.rows, threads, [&](int64_t g, int64_t id, int64_t first, int64_t count) {
      const S* pushed = static_cast<const S*>(p.pushed) + first;
      RunningDot<S> dot;
      for (int64_t at = 0; at < count; at += kDrawn) {
        const int64_t some = count - at < kDrawn ? count - at : kDrawn;
        S v[kDrawn];
        draw(p.probe, id, at, v, some);
        dot.add(v, pushed + at, some);
      }
      store_scalar(static_cast<S*>(p.out) + g, dot.total());
    });
  });
}

void probe_scale(const gg_probe_scale_params& p, int threads) {
  with_dtype(p.probe.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    for_graphs(p.probe, p.rows, threads, [&](int64_t g, int64_t id, int64_t first, int64_t count) {
      const auto scale = load_scalar(static_cast<const S*>(p.scale) + g);
      S* out = static_cast<S*>(p.out) + first;
      draw(p.probe, id, 0, out, count);
      for_each_tile<S>(count, [&](auto tile) {
        for (int v = 0; v < decltype(tile)::vectors; ++v) tile.write(out, v, scale * tile.read(out, v));
      });
    });
  });
}

}  // namespace gg::GG_ISA
