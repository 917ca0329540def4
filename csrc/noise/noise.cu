#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"
#include "draw.cuh"

namespace gg::cuda {
namespace {

constexpr unsigned kWholeWarp = 0xffffffffu;

// One thread four elements of a graph, its quad. Quads are numbered through all graphs without a pass over
// them: those of graph g start at floor(its first element / 4) + g, which leaves each graph at least as many
// as it needs.
template <class S>
struct Noise {
  gg_noise_params p;

  __device__ __forceinline__ int64_t start(int64_t graph) const {
    return static_cast<const int64_t*>(p.ptr)[graph] * p.features;
  }
  __device__ __forceinline__ int64_t first_quad(int64_t graph) const { return start(graph) / 4 + graph; }

  // Whole warps only: their threads write together.
  __device__ __forceinline__ int64_t items() const {
    return (first_quad(p.graphs) - first_quad(0) + kWarp - 1) / kWarp * kWarp;
  }

  // The last graph whose quads start at or before this one.
  __device__ __forceinline__ int64_t graph_of(int64_t quad) const {
    int64_t low = 0, high = p.graphs;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      if (first_quad(middle) <= quad) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }

  __device__ __forceinline__ void operator()(int64_t item) const {
    __shared__ float staged[kThreads / kWarp][4 * kWarp];
    const int lane = threadIdx.x % kWarp;
    float* values = staged[threadIdx.x / kWarp];

    const int64_t quad = item + first_quad(0), graph = graph_of(quad), in_graph = quad - first_quad(graph);
    const int64_t count = start(graph + 1) - start(graph);
    const int64_t done = in_graph * 4 < count ? in_graph * 4 : count;
    const int filled = count - done < 4 ? static_cast<int>(count - done) : 4;
    float element[4];
    draw(p, graph, in_graph, element);

    // What a warp's threads hold is one run of the output, whichever graphs they are in: written together.
    const int64_t place = start(graph) + done;
    const int64_t begin = __shfl_sync(kWholeWarp, place, 0);
    const int length = static_cast<int>(__shfl_sync(kWholeWarp, place + filled, kWarp - 1) - begin);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < filled) values[place - begin + k] = element[k];
    __syncwarp();
    for (int k = lane; k < length; k += kWarp) store_scalar(static_cast<S*>(p.out) + begin + k, values[k]);
    __syncwarp();
  }
};

}  // namespace

gg_status noise(const gg_noise_params& p, void* stream) {
  if (p.graphs == 0 || p.features == 0) return GG_OK;
  return with_dtype(p.dtype, [&](auto dtype) {
    return launch_counted_items("noise", stream, Noise<typename decltype(dtype)::type>{p});
  });
}

}  // namespace gg::cuda
