// The noise contract by threads, for the CUDA kernels. A thread makes four elements of a graph, its quad. Quads are
// numbered through all graphs without a pass over them: those of graph g start at floor(its first element / 4) + g,
// which leaves each graph at least as many as it needs.
#pragma once

#include "../common/launch.cuh"
#include "../graphgen.h"
#include "pairs.h"
#include "philox.h"

namespace gg::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

// The graph whose first number is the last at or before `wanted`, for ascending firsts; all threads of a warp ask for
// the same one.
template <class First>
static __device__ __forceinline__ int64_t last_at_or_before(int64_t graphs, int64_t wanted, const First& first) {
  const int lane = threadIdx.x % kWarp;
  int64_t low = 0, high = graphs;
  while (high - low > 1) {
    const int64_t step = (high - low + kWarp - 1) / kWarp, probed = low + step * lane;
    const bool before = lane == 0 || (probed < high && first(probed) <= wanted);
    low += step * (__popc(__ballot_sync(kWholeWarp, before)) - 1);
    high = low + step < high ? low + step : high;
  }
  return low;
}

struct Quads {
  gg_graph_noise noise;
  int64_t graphs, rows, features;

  struct Quad {
    int64_t graph, number;  // the number within the graph
    int64_t warps_first;    // the first graph of the warp
  };

  // A boundary beyond the rows must not become a write beyond them.
  __device__ __forceinline__ int64_t start(int64_t graph) const {
    const int64_t row = static_cast<const int64_t*>(noise.ptr)[graph];
    return (row < 0 ? 0 : row > rows ? rows : row) * features;
  }
  __device__ __forceinline__ int64_t count(int64_t graph) const { return start(graph + 1) - start(graph); }
  __device__ __forceinline__ int64_t first(int64_t graph) const { return start(graph) / 4 + graph; }

  // Whole warps only: their threads work together.
  int64_t items() const { return (rows * features / 4 + graphs + kWarp - 1) / kWarp * kWarp; }

  // A warp's quads are consecutive, and each graph begins at its own.
  __device__ __forceinline__ Quad at(int64_t item) const {
    const int64_t warps_quad = item - threadIdx.x % kWarp;
    const int64_t low = last_at_or_before(graphs, warps_quad, [&](int64_t graph) { return first(graph); });
    const int64_t next = low + 1 + threadIdx.x % kWarp;
    const int64_t distance = next < graphs ? first(next) - warps_quad : kWarp;
    const unsigned begins = __reduce_or_sync(kWholeWarp, distance < kWarp ? 1u << distance : 0u);
    const int64_t graph = low + __popc(begins & (kWholeWarp >> (kWarp - 1 - threadIdx.x % kWarp)));
    const int64_t number = item - first(graph);
    return {graph, number < 0 ? 0 : number, low};
  }

  __device__ __forceinline__ uint32_t step() const {
    return noise.step + (noise.step_at ? static_cast<uint32_t>(*noise.step_at) : 0);
  }
  __device__ __forceinline__ void words(int64_t graph, int64_t block, uint32_t (&words)[4]) const {
    const int64_t id = noise.graph_id ? static_cast<const int64_t*>(noise.graph_id)[graph] : graph;
    words[0] = static_cast<uint32_t>(block);
    words[1] = step();
    words[2] = static_cast<uint32_t>(id);
    words[3] = last_counter_word(noise.stream, id);
    philox(words, noise.seed);
  }

  __device__ __forceinline__ void normals(int64_t graph, int64_t quad, float (&element)[4]) const {
    uint32_t word[4];
    words(graph, quad, word);
    box_muller(word[0], word[1], element[0], element[1]);
    box_muller(word[2], word[3], element[2], element[3]);
  }
};

// The elements of a warp's quads are one run of the output, whichever graphs they are in: its threads share them out
// anew, so that neighbours touch neighbours. Of one warp, in shared memory.
struct WarpRun {
  float noise[4 * kWarp];
  int graph[4 * kWarp];  // from the warp's first

  // body(element of the output, graph, noise) for the elements of this warp's quads.
  template <class Body>
  __device__ __forceinline__ void each(const Quads& quads, const Quads::Quad& quad, const float (&element)[4],
                                       const Body& body) {
    const int64_t count = quads.count(quad.graph), done = quad.number * 4 < count ? quad.number * 4 : count;
    const int filled = count - done < 4 ? static_cast<int>(count - done) : 4;
    const int64_t place = quads.start(quad.graph) + done;
    const int64_t begin = __shfl_sync(kWholeWarp, place, 0);
    const int length = static_cast<int>(__shfl_sync(kWholeWarp, place + filled, kWarp - 1) - begin);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (k < filled) {
        noise[place - begin + k] = element[k];
        graph[place - begin + k] = static_cast<int>(quad.graph - quad.warps_first);
      }
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int at = k * kWarp + threadIdx.x % kWarp;
      if (at < length) body(begin + at, quad.warps_first + graph[at], noise[at]);
    }
    __syncwarp();
  }
};

}  // namespace gg::cuda
