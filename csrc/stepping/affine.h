// One element of a solver step, once for the CPU and the CUDA kernels.
#pragma once

#include "../common/bfloat16.h"
#include "../graphgen.h"

#include <stdint.h>

namespace gg {

template <class S>
struct Keep {
  const uint8_t* at;
  int64_t features, keep_features;

  GG_MEMBER bool operator()(int64_t place) const {
    return at && at[keep_features == features ? place : place / features] != 0;
  }
};

template <class S>
struct Affine {
  using Real = typename Accumulator<S>::Type;
  const S* term[GG_TERMS];
  const Real* coefficient[GG_TERMS];
  Real scale[GG_TERMS];
  const S* diffusion;
  const Real* amplitude;
  Real amplitude_scale;
  Keep<S> keep;
  S* out;
  int64_t* broken;

  explicit Affine(const gg_affine_noise_step_params& p)
      : diffusion(static_cast<const S*>(p.diffusion)),
        amplitude(static_cast<const Real*>(p.amplitude)),
        amplitude_scale(static_cast<Real>(p.amplitude_scale)),
        keep{p.keep, p.features, p.keep_features},
        out(static_cast<S*>(p.out)),
        broken(p.broken) {
    for (int k = 0; k < GG_TERMS; ++k) {
      term[k] = static_cast<const S*>(p.term[k]);
      coefficient[k] = static_cast<const Real*>(p.coefficient[k]);
      scale[k] = static_cast<Real>(p.scale[k]);
    }
  }

  GG_MEMBER Real coefficient_of(int k, int64_t graph) const {
    return coefficient[k] ? scale[k] * coefficient[k][graph] : scale[k];
  }
  GG_MEMBER Real amplitude_of(int64_t graph) const {
    return amplitude ? amplitude_scale * amplitude[graph] : amplitude_scale;
  }

  GG_MEMBER Real drifted(int terms, int64_t place, int64_t graph) const {
    Real value = coefficient_of(0, graph) * load_scalar(term[0] + place);
    for (int k = 1; k < terms; ++k) value = value + coefficient_of(k, graph) * load_scalar(term[k] + place);
    return value;
  }
  GG_MEMBER Real noise_of(int64_t place, int64_t graph, float xi) const {
    const Real factor = diffusion ? amplitude_of(graph) * load_scalar(diffusion + place) : amplitude_of(graph);
    return factor * static_cast<Real>(xi);
  }
  // Without noise xi is not looked at. `number` is the step's.
  GG_MEMBER void step(int terms, bool noisy, int64_t place, int64_t graph, float xi, uint32_t number) const {
    if (keep(place)) {
      out[place] = term[0][place];
    } else if (!noisy) {
      store_scalar(out + place, terms > 0 ? drifted(terms, place, graph) : Real(0));
    } else {
      const Real noise = noise_of(place, graph, xi);
      store_scalar(out + place, terms > 0 ? drifted(terms, place, graph) + noise : noise);
    }
    if (broken) {
      const Real value = load_scalar(out + place);
      if (value - value != Real(0)) mark(graph, number);
    }
  }
  // Whoever comes first in a step, all write the same.
  GG_MEMBER void mark(int64_t graph, uint32_t number) const {
    if (broken[graph] < 0) broken[graph] = number;
  }
};

// One element of a sum over a graph.
template <class S>
struct Dot {
  using Real = typename Accumulator<S>::Type;
  const S *a, *b;
  Keep<S> keep;
  int power;

  explicit Dot(const gg_noise_dot_params& p)
      : a(static_cast<const S*>(p.a)),
        b(static_cast<const S*>(p.b)),
        keep{p.keep, p.features, p.keep_features},
        power(p.power) {}

  GG_MEMBER Real product(int64_t place) const {
    if (keep(place)) return Real(0);
    const Real value = a ? load_scalar(a + place) : Real(1);
    return b ? value * load_scalar(b + place) : value;
  }
  GG_MEMBER Real times(Real value, float xi) const {
    const Real noise = static_cast<Real>(xi);
    return power == 0 ? value : power == 1 ? value * noise : value * (noise * noise);
  }
};

// The square of an error in units of what is tolerated.
template <class Real>
GG_HD Real scaled_square(Real error, Real before, Real after, Real atol, Real rtol) {
  const Real zero{};
  const Real from = before < zero ? -before : before, to = after < zero ? -after : after;
  const Real ratio = error / (atol + rtol * (from > to ? from : to));
  return ratio * ratio;
}

}  // namespace gg
