#include "runs.h"

namespace gg::GG_ISA {

template <class S, int terms>
static void embedded_steps(const gg_embedded_step_params& p, const Batch& batch, int64_t begin, int64_t end) {
  using Real = typename Affine<S>::Real;
  using Vector = typename Simd<S>::Vector;
  const Affine<S> affine(p.step);
  const Vector atol = Vector{} + static_cast<Real>(p.atol), rtol = Vector{} + static_cast<Real>(p.rtol);
  Real* norm = static_cast<Real*>(p.norm);
  double total = 0;
  for (int64_t graph = begin; graph < end; ++graph) norm[graph] = 0;
  for_each_plain_run(batch, begin, end, [&](int64_t graph, int64_t first, int count, const float*) {
    const int64_t place = batch.start(graph) + first;
    const Terms<S, terms> step(affine, graph, place);
    Terms<S, terms> error = step;
    for (int k = 0; k < terms; ++k)
      error.coefficient[k] = affine.coefficient[k] ? static_cast<Real>(p.error_scale[k]) * affine.coefficient[k][graph]
                                                   : static_cast<Real>(p.error_scale[k]);
    Real squares[kRun + Simd<S>::lanes];
    for_each_coarse_tile<S, 1>(count, [&](auto tile) {
      const Vector after = step.sum(tile, 0);
      const Vector square = scaled_square(error.sum(tile, 0), tile.read(step.at[0], 0), after, atol, rtol);
      memcpy(squares + tile.first, &square, sizeof square);
      if (affine.out) tile.write(affine.out + place, 0, after);
    });
    total = (first > 0 ? total : 0) + sum_of_run(squares, count);
    norm[graph] = static_cast<Real>(sqrt(total / static_cast<double>(batch.rows(graph) * batch.features)));
  });
}

void embedded_step(const gg_embedded_step_params& p, int threads) {
  const gg_affine_noise_step_params& step = p.step;
  const Batch batch(step.noise, step.features);
  with_dtype(p.dtype, [&](auto dtype) {
    with_terms(step.terms, [&](auto terms) {
      if constexpr (decltype(terms)::value > 0) {
        auto body = [&](int64_t begin, int64_t end) {
          embedded_steps<typename decltype(dtype)::type, decltype(terms)::value>(p, batch, begin, end);
        };
        for_rows(step.graphs, work_per_graph(step.graphs, step.rows, step.features, 8), threads, body);
      }
    });
  });
}

}  // namespace gg::GG_ISA
