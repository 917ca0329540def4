#include "runs.h"

namespace gg::GG_ISA {

template <class S>
static void sum_graphs(const gg_noise_dot_params& p, const Batch& batch, int64_t begin, int64_t end) {
  using Real = typename Dot<S>::Real;
  const Dot<S> dot(p);
  Real* out = static_cast<Real*>(p.out);
  double total = 0;
  auto add = [&](int64_t graph, int64_t first, Real* values, int count) {
    total = (first > 0 ? total : 0) + sum_of_run(values, count);
    out[graph] = static_cast<Real>(total);
  };
  auto elements = [&](int64_t graph, int64_t first, int count, const float* noise) {
    // By passes that vectorise, each rounding as the whole would.
    Real values[kRun];
    const int64_t place = batch.start(graph) + first;
    for (int k = 0; k < count; ++k) values[k] = dot.a ? load_scalar(dot.a + place + k) : Real(1);
    if (dot.b)
      for (int k = 0; k < count; ++k) values[k] *= load_scalar(dot.b + place + k);
    if (p.power == 1)
      for (int k = 0; k < count; ++k) values[k] *= static_cast<Real>(noise[k]);
    if (p.power == 2)
      for (int k = 0; k < count; ++k) values[k] *= static_cast<Real>(noise[k]) * static_cast<Real>(noise[k]);
    if (dot.keep.at)
      for (int k = 0; k < count; ++k) values[k] = dot.keep(place + k) ? Real(0) : values[k];
    add(graph, first, values, count);
  };
  auto pairs = [&](int64_t graph, int64_t first, int count, const float* noise) {
    Real values[kRun];
    const int64_t n = side_of(batch.rows(graph)), features = batch.features, start = batch.start(graph);
    for (int k = 0; k < count; ++k) {
      const Pair pair = Pair::at((first + k) / features);
      const int64_t feature = (first + k) % features;
      Real value = dot.product(start + pair.row(n) * features + feature);
      if (pair.i != pair.j) value = value + dot.product(start + pair.mirrored_row(n) * features + feature);
      values[k] = dot.times(value, noise[k]);
    }
    add(graph, first, values, count);
  };
  for (int64_t graph = begin; graph < end; ++graph) out[graph] = 0;
  if (p.power == 0) {
    for_each_plain_run(batch, begin, end, elements);
  } else if (p.noise.symmetric) {
    for_each_run<GG_NORMAL>(batch, begin, end, pairs);
  } else {
    for_each_run<GG_NORMAL>(batch, begin, end, elements);
  }
}

void noise_dot(const gg_noise_dot_params& p, int threads) {
  const Batch batch(p.noise, p.features);
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t begin, int64_t end) { sum_graphs<typename decltype(dtype)::type>(p, batch, begin, end); };
    for_rows(p.graphs, work_per_graph(p.graphs, p.rows, p.features, p.power > 0 ? 20 : 4), threads, body);
  });
}

}  // namespace gg::GG_ISA
