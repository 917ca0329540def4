#include "runs.h"

namespace gg::GG_ISA {

template <class S>
GG_HD typename Simd<S>::Vector noise_at(const float* noise) {
  if constexpr (sizeof(S) == 8) {
    typedef float Half __attribute__((vector_size(GG_VECTOR_BYTES / 2)));
    Half half;
    __builtin_memcpy(&half, noise, sizeof half);
    return __builtin_convertvector(half, doublev);
  } else {
    return load(noise);
  }
}

// Which lanes of a step are kept, from a byte each.
template <class S>
GG_HD auto kept_at(const uint8_t* keep) {
  typedef uint8_t Bytes __attribute__((vector_size(Simd<S>::lanes)));
  using Integer = typename RealTraits<typename Simd<S>::Vector>::Integer;
  Bytes bytes;
  __builtin_memcpy(&bytes, keep, sizeof bytes);
  return __builtin_convertvector(bytes, Integer) != 0;
}

// Runs of a step. With keep given per row its features are written out, for reading with those of the state.
template <class S, int terms>
static void step_run(const Affine<S>& affine, const Batch& batch, int64_t graph, int64_t place, int count,
                     const float* noise) {
  using Vector = typename Simd<S>::Vector;
  constexpr int lanes = Simd<S>::lanes;
  const Terms<S, terms> drift(affine, graph, place);
  const auto amplitude = affine.amplitude_of(graph);
  const S* diffusion = affine.diffusion ? affine.diffusion + place : nullptr;
  S* out = affine.out + place;
  uint8_t keep[kRun + 64];
  if (affine.keep.at)
    for (int k = 0; k < count; ++k) keep[k] = affine.keep(place + k);
  Vector zero{};  // unless something is not finite
  for_each_coarse_tile<S, 2>(count, [&](auto tile) {
    for (int v = 0; v < decltype(tile)::vectors; ++v) {
      const int64_t at = tile.first + v * lanes;
      Vector value = drift.sum(tile, v);
      if (noise) {
        const Vector factor = diffusion ? amplitude * tile.read(diffusion, v) : amplitude + Vector{};
        const Vector part = factor * noise_at<S>(noise + at);
        value = terms > 0 ? value + part : part;
      }
      if constexpr (terms > 0)
        if (affine.keep.at) value = kept_at<S>(keep + at) ? tile.read(drift.at[0], v) : value;
      tile.write(out, v, value);
      zero += tile.filled(value - value);
    }
  });
  if (affine.broken && sum_of_lanes(zero) != 0) affine.mark(graph, batch.step);
}

// A run of unordered pairs: both orders take a step with the same noise.
template <class S>
static void step_pairs(const Affine<S>& affine, int terms, const Batch& batch, int64_t graph, int64_t first, int count,
                       const float* noise) {
  const int64_t n = side_of(batch.rows(graph)), features = batch.features, start = batch.start(graph);
  Pair pair = Pair::at(first / features);
  int64_t feature = first % features;
  for (int k = 0; k < count; ++k) {
    affine.step(terms, true, start + pair.row(n) * features + feature, graph, noise[k], batch.step);
    if (pair.i != pair.j)
      affine.step(terms, true, start + pair.mirrored_row(n) * features + feature, graph, noise[k], batch.step);
    if (++feature < features) continue;
    feature = 0;
    if (++pair.j > pair.i) pair = {pair.i + 1, 0};
  }
}

// Without noise and without numbers of their own, graphs are one run.
static bool is_uniform(const gg_affine_noise_step_params& p) {
  bool uniform = !p.noisy && !p.broken;
  for (int k = 0; k < p.terms; ++k) uniform = uniform && !p.coefficient[k];
  return uniform;
}

void affine_noise_step(const gg_affine_noise_step_params& p, int threads) {
  const Batch batch(p.noise, p.features);
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const Affine<S> affine(p);
    with_terms(p.terms, [&](auto terms) {
      auto body = [&](int64_t begin, int64_t end) {
        auto step = [&](int64_t graph, int64_t first, int count, const float* noise) {
          step_run<S, decltype(terms)::value>(affine, batch, graph, batch.start(graph) + first, count, noise);
        };
        if (is_uniform(p)) {
          const int64_t last = batch.start(end);
          for (int64_t at = batch.start(begin); at < last; at += kRun)
            step_run<S, decltype(terms)::value>(affine, batch, begin, at,
                                                static_cast<int>(last - at < kRun ? last - at : kRun), nullptr);
        } else if (!p.noisy) {
          for_each_plain_run(batch, begin, end, step);
        } else if (!p.noise.symmetric) {
          for_each_run<GG_NORMAL>(batch, begin, end, step);
        } else {
          for_each_run<GG_NORMAL>(batch, begin, end, [&](int64_t graph, int64_t first, int count, const float* noise) {
            step_pairs(affine, p.terms, batch, graph, first, count, noise);
          });
        }
      };
      for_rows(p.graphs, work_per_graph(p.graphs, p.rows, p.features, p.noisy ? 20 : 4), threads, body);
    });
  });
}

}  // namespace gg::GG_ISA
