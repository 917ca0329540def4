// Sums over graphs on CUDA, in the order that GG_SUM_CHUNK fixes: a warp sums a chunk, a thread a graph's chunks.
#pragma once

#include "../noise/quads.cuh"

namespace gg::cuda {

// Chunks are numbered as quads are.
struct Chunks {
  Quads quads;

  struct Chunk {
    int64_t graph, first;  // the first element within the graph
  };

  __device__ __forceinline__ int64_t first(int64_t graph) const { return quads.start(graph) / GG_SUM_CHUNK + graph; }
  int64_t count() const { return quads.rows * quads.features / GG_SUM_CHUNK + quads.graphs; }
  int64_t items() const { return count() * kWarp; }
  __device__ __forceinline__ Chunk at(int64_t item) const {
    const int64_t chunk = item / kWarp;
    const int64_t graph = last_at_or_before(quads.graphs, chunk, [&](int64_t graph) { return first(graph); });
    return {graph, (chunk - first(graph)) * GG_SUM_CHUNK};
  }
};

// The lanes' values added by halves.
template <class Real>
static __device__ __forceinline__ Real sum_of_warp(Real value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  return value;
}

template <class Real>
static __device__ __forceinline__ void store_chunk(double* partial, int64_t item, Real lanes_sum) {
  const Real sum = sum_of_warp(lanes_sum);
  if (threadIdx.x % kWarp == 0) partial[item / kWarp] = static_cast<double>(sum);
}

// out[g] = finish(sum of the graph's chunks, its elements)
template <class Real, class Finish>
struct JoinChunks {
  Chunks chunks;
  const double* partial;
  Real* out;
  Finish finish;

  __device__ __forceinline__ void operator()(int64_t graph) const {
    const int64_t begin = chunks.first(graph);
    const int64_t elements = chunks.quads.count(graph), end = begin + (elements + GG_SUM_CHUNK - 1) / GG_SUM_CHUNK;
    double total = 0;
    for (int64_t chunk = begin; chunk < end; ++chunk) total += partial[chunk];
    out[graph] = static_cast<Real>(finish(total, elements));
  }
};

template <class Real, class Body, class Finish>
static gg_status launch_sums(const char* operation, const Chunks& chunks, void* stream, const Body& body, Real* out,
                             double* partial, const Finish& finish) {
  if (gg_status status = launch_items(operation, chunks.items(), stream, body)) return status;
  return launch_items(operation, chunks.quads.graphs, stream, JoinChunks<Real, Finish>{chunks, partial, out, finish});
}

}  // namespace gg::cuda
