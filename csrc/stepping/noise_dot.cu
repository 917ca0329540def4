#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "affine.h"
#include "chunks.cuh"

namespace gg::cuda {
namespace {

struct Total {
  __device__ __forceinline__ double operator()(double total, int64_t) const { return total; }
};

template <class S>
struct PlainDot {
  using Real = typename Dot<S>::Real;
  Chunks chunks;
  Dot<S> dot;
  double* partial;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Chunks::Chunk chunk = chunks.at(item);
    const int64_t left = chunks.quads.count(chunk.graph) - chunk.first;
    const int64_t place = chunks.quads.start(chunk.graph) + chunk.first;
    Real sum = 0;
    for (int k = threadIdx.x % kWarp; k < GG_SUM_CHUNK && k < left; k += kWarp) sum += dot.product(place + k);
    store_chunk(partial, item, sum);
  }
};

// With noise: the warp draws 128 numbers at a time and shares them out over the lanes of the sum.
template <class S>
struct NoiseDot {
  using Real = typename Dot<S>::Real;
  Chunks chunks;
  Dot<S> dot;
  double* partial;

  __device__ __forceinline__ Real product(int64_t start, int64_t n, int64_t number) const {
    const int64_t features = chunks.quads.features;
    if (!chunks.quads.noise.symmetric) return dot.product(start + number);
    const Pair pair = Pair::at(number / features);
    const int64_t feature = number % features;
    const Real value = dot.product(start + pair.row(n) * features + feature);
    return pair.i == pair.j ? value : value + dot.product(start + pair.mirrored_row(n) * features + feature);
  }

  __device__ __forceinline__ void operator()(int64_t item) const {
    __shared__ float staged[kThreads / kWarp][4 * kWarp];
    const int lane = threadIdx.x % kWarp;
    float* noise = staged[threadIdx.x / kWarp];
    const Chunks::Chunk chunk = chunks.at(item);
    const Quads& quads = chunks.quads;
    const int64_t count = quads.count(chunk.graph), start = quads.start(chunk.graph);
    const int64_t n = quads.noise.symmetric ? side_of(count / quads.features) : 0;
    const int64_t left = (quads.noise.symmetric ? pairs_of(n) * quads.features : count) - chunk.first;
    Real sum = 0;
    for (int at = 0; at < GG_SUM_CHUNK && at < left; at += 4 * kWarp) {
      float element[4];
      quads.normals(chunk.graph, (chunk.first + at) / 4 + lane, element);
#pragma unroll
      for (int k = 0; k < 4; ++k) noise[4 * lane + k] = element[k];
      __syncwarp();
#pragma unroll
      for (int k = lane; k < 4 * kWarp; k += kWarp)
        if (at + k < left) sum += dot.times(product(start, n, chunk.first + at + k), noise[k]);
      __syncwarp();
    }
    store_chunk(partial, item, sum);
  }
};

}  // namespace

gg_status noise_dot(const gg_noise_dot_params& p, void* stream) {
  const Chunks chunks{{p.noise, p.graphs, p.rows, p.features}};
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const Dot<S> dot(p);
    auto* out = static_cast<typename Dot<S>::Real*>(p.out);
    if (p.power == 0)
      return launch_sums("noise_dot", chunks, stream, PlainDot<S>{chunks, dot, p.partial}, out, p.partial, Total{});
    return launch_sums("noise_dot", chunks, stream, NoiseDot<S>{chunks, dot, p.partial}, out, p.partial, Total{});
  });
}

}  // namespace gg::cuda
