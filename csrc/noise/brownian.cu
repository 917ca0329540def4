#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "brownian.h"
#include "quads.cuh"

namespace gg::cuda {
namespace {

// A thread takes its quad all the way, in float64 one half after the other, for want of registers; see Journey for the
// same by strips.
template <class S>
struct Brownian {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kTogether = sizeof(Real) == 8 ? 2 : 4;
  gg_brownian_params p;
  Quads quads;

  __device__ __forceinline__ void normals(const Quads::Quad& quad, uint64_t seed, int64_t cell, int half,
                                          float (&x)[kTogether]) const {
    const int64_t id =
        quads.noise.graph_id ? static_cast<const int64_t*>(quads.noise.graph_id)[quad.graph] : quad.graph;
    uint32_t word[4] = {static_cast<uint32_t>(quad.number), static_cast<uint32_t>(cell), static_cast<uint32_t>(id),
                        last_counter_word(p.noise.stream, id)};
    philox(word, seed);
    if constexpr (kTogether == 4) {
      box_muller(word[0], word[1], x[0], x[1]);
      box_muller(word[2], word[3], x[2], x[3]);
    } else {
      box_muller(half ? word[2] : word[0], half ? word[3] : word[1], x[0], x[1]);
    }
  }

  __device__ __forceinline__ void descend(const Quads::Quad& quad, int half, const BrownianPlace& place,
                                          const Real (&w)[kTogether], const Real (&h)[kTogether],
                                          Travelled<Real> (&done)[kTogether]) const {
    Descent<Real> element[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) element[k] = {w[k], h[k], {Real(0), Real(0)}};
    double length = p.cell;
#pragma unroll 1
    for (int level = 0; place.goes_on(level, p.depth); ++level, length *= 0.5) {
      const BrownianKeys keys =
          BrownianKeys::of(p.noise.seed, p.noise.stream, place.cell, level, place.index(level, p.depth));
      float along[kTogether], across[kTogether];
      normals(quad, keys.along, place.cell, half, along);
      normals(quad, keys.across, place.cell, half, across);
      const Halving<Real> factor = Halving<Real>::of(length);
      const bool right = place.right(level, p.depth);
#pragma unroll
      for (int k = 0; k < kTogether; ++k)
        element[k].halve(right, static_cast<Real>(along[k]), static_cast<Real>(across[k]), factor);
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (place.rest != 0.0) element[k].finish(static_cast<Real>(place.rest), static_cast<Real>(length));
      done[k] = element[k].left;
    }
  }

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Quads::Quad quad = quads.at(item);
    const int64_t left = quads.count(quad.graph) - quad.number * 4;
    if (left <= 0) return;
    const BrownianSpan span = BrownianSpan::of(p, quad.graph);
#pragma unroll 1
    for (int half = 0; half < 4 / kTogether; ++half) travel(quad, span, half, left - half * kTogether);
  }

  __device__ __forceinline__ void travel(const Quads::Quad& quad, const BrownianSpan& span, int half,
                                         int64_t left) const {
    const int64_t last = span.last_cell();
    const Real root = static_cast<Real>(sqrt(p.cell)), wide = static_cast<Real>(sqrt(p.cell / 12.0));
    Travelled<Real> total[kTogether] = {};
#pragma unroll 1
    for (int64_t cell = span.from.cell; cell <= last; ++cell) {
      const bool begins = cell > span.from.cell || span.from.at_start(), ends = cell < span.to.cell;
      float x[kTogether];
      normals(quad, p.noise.seed, cell, half, x);
      Real w[kTogether], h[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) w[k] = root * static_cast<Real>(x[k]);
      if (begins && ends && !p.integral) {
#pragma unroll
        for (int k = 0; k < kTogether; ++k) total[k].w = total[k].w + w[k];
        continue;
      }
      normals(quad, BrownianKeys::of(p.noise.seed, p.noise.stream, cell, kCellLevel, 0).across, cell, half, x);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) h[k] = wide * static_cast<Real>(x[k]);
      const double since = begins ? 0.0 : span.from.since(p.cell, p.depth);
      const double until = ends ? p.cell : span.to.since(p.cell, p.depth);
      Travelled<Real> to[kTogether];
      if (!begins) descend(quad, half, span.from, w, h, total);  // of the first cell: nothing is in there yet
      if (ends) {
        const Real length = static_cast<Real>(p.cell);
#pragma unroll
        for (int k = 0; k < kTogether; ++k) to[k] = {w[k], length * (Real(0.5) * w[k] + h[k])};
      } else {
        descend(quad, half, span.to, w, h, to);
      }
      const Real length = static_cast<Real>(until - since);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        if (begins) {
          total[k].add(length, to[k].w, to[k].u);
        } else {
          const Travelled<Real> from = total[k];
          total[k] = {Real(0), Real(0)};
          total[k].add(length, to[k].w - from.w, (to[k].u - from.u) - length * from.w);
        }
      }
    }
    const Real elapsed = static_cast<Real>(span.elapsed);
    const int64_t place = quads.start(quad.graph) + quad.number * 4 + half * kTogether;
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (k >= left) continue;
      const Real w = span.reversed ? -total[k].w : total[k].w;
      store_scalar(static_cast<S*>(p.out) + place + k, w);
      if (p.integral)
        store_scalar(static_cast<S*>(p.integral) + place + k,
                     span.reversed ? elapsed * total[k].w - total[k].u : total[k].u);
    }
  }
};

}  // namespace

gg_status brownian(const gg_brownian_params& p, void* stream) {
  if (p.rows == 0 || p.features == 0) return GG_OK;
  const Quads quads{p.noise, p.graphs, p.rows, p.features};
  return with_dtype(p.dtype, [&](auto dtype) {
    return launch_items("brownian", quads.items(), stream, Brownian<typename decltype(dtype)::type>{p, quads});
  });
}

}  // namespace gg::cuda
