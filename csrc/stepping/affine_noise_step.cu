#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "../noise/quads.cuh"
#include "affine.h"

namespace gg::cuda {
namespace {

// Terms < 0: as many as `terms` says. The usual numbers are unrolled, so that their loads wait together.
template <class S, int Terms>
struct Step {
  Quads quads;
  Affine<S> affine;
  int terms;
  bool noisy;

  __device__ __forceinline__ void operator()(int64_t item) const {
    __shared__ WarpRun runs[kThreads / kWarp];
    const Quads::Quad quad = quads.at(item);
    float element[4] = {};
    if (noisy) quads.normals(quad.graph, quad.number, element);
    runs[threadIdx.x / kWarp].each(quads, quad, element, [&](int64_t place, int64_t graph, float xi) {
      affine.step(Terms < 0 ? terms : Terms, noisy, place, graph, xi, quads.step());
    });
  }
};

// Both orders of a pair take a step with the same noise. Four numbers a thread, see PairNoise.
template <class S>
struct PairStep {
  Quads quads;
  Affine<S> affine;
  int terms;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Quads::Quad quad = quads.at(item);
    const int64_t n = side_of(quads.count(quad.graph) / quads.features), numbers = pairs_of(n) * quads.features;
    if (quad.number * 4 >= numbers) return;
    float element[4];
    quads.normals(quad.graph, quad.number, element);
    const int64_t start = quads.start(quad.graph);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t number = quad.number * 4 + k, feature = number % quads.features;
      if (number >= numbers) break;
      const Pair pair = Pair::at(number / quads.features);
      affine.step(terms, true, start + pair.row(n) * quads.features + feature, quad.graph, element[k], quads.step());
      if (pair.i != pair.j)
        affine.step(terms, true, start + pair.mirrored_row(n) * quads.features + feature, quad.graph, element[k],
                    quads.step());
    }
  }
};

}  // namespace

gg_status affine_noise_step(const gg_affine_noise_step_params& p, void* stream) {
  if (p.rows == 0 || p.features == 0) return GG_OK;
  const Quads quads{p.noise, p.graphs, p.rows, p.features};
  const bool noisy = p.noisy != 0;
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const Affine<S> affine(p);
    auto launch = [&](const auto& step) { return launch_items("affine_noise_step", quads.items(), stream, step); };
    if (noisy && p.noise.symmetric) return launch(PairStep<S>{quads, affine, p.terms});
    if (p.terms == 1) return launch(Step<S, 1>{quads, affine, 1, noisy});
    if (p.terms == 2) return launch(Step<S, 2>{quads, affine, 2, noisy});
    if (p.terms == 3) return launch(Step<S, 3>{quads, affine, 3, noisy});
    return launch(Step<S, -1>{quads, affine, p.terms, noisy});
  });
}

}  // namespace gg::cuda
