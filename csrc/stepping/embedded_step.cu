#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "affine.h"
#include "chunks.cuh"

namespace gg::cuda {
namespace {

struct RootMean {
  __device__ __forceinline__ double operator()(double total, int64_t elements) const {
    return elements > 0 ? sqrt(total / static_cast<double>(elements)) : 0.0;
  }
};

template <class S>
struct EmbeddedStep {
  using Real = typename Affine<S>::Real;
  Chunks chunks;
  Affine<S> affine, error;
  Real atol, rtol;
  double* partial;
  int terms;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Chunks::Chunk chunk = chunks.at(item);
    const int64_t left = chunks.quads.count(chunk.graph) - chunk.first;
    const int64_t start = chunks.quads.start(chunk.graph) + chunk.first;
    Real sum = 0;
    for (int k = threadIdx.x % kWarp; k < GG_SUM_CHUNK && k < left; k += kWarp) {
      const int64_t place = start + k;
      const Real before = load_scalar(affine.term[0] + place), after = affine.drifted(terms, place, chunk.graph);
      sum += scaled_square(error.drifted(terms, place, chunk.graph), before, after, atol, rtol);
      if (affine.out) store_scalar(affine.out + place, after);
    }
    store_chunk(partial, item, sum);
  }
};

}  // namespace

gg_status embedded_step(const gg_embedded_step_params& p, void* stream) {
  const gg_affine_noise_step_params& step = p.step;
  const Chunks chunks{{step.noise, step.graphs, step.rows, step.features}};
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    using Real = typename Affine<S>::Real;
    Affine<S> error(step);
    for (int k = 0; k < GG_TERMS; ++k) error.scale[k] = static_cast<Real>(p.error_scale[k]);
    const EmbeddedStep<S> body{chunks,    Affine<S>(step), error, static_cast<Real>(p.atol), static_cast<Real>(p.rtol),
                               p.partial, step.terms};
    return launch_sums("embedded_step", chunks, stream, body, static_cast<Real*>(p.norm), p.partial, RootMean{});
  });
}

}  // namespace gg::cuda
