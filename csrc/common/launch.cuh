// The only place where a grid size is computed and a kernel is launched.
//
// A kernel is a plain struct (its arguments, passed by value) with a device operator() for one item or one
// block of work; the loops here cover every item whatever the grid, so a capped grid leaves nothing undone.
#pragma once

#include "status.h"

#include <cuda_runtime.h>
#include <stdint.h>

namespace gg::cuda {

constexpr int kThreads = 256;  // a block, for every kernel
constexpr int kWarp = 32;
constexpr int kResident = 2;  // blocks a processor must hold; left free, the compiler may spill to hold more
constexpr int64_t kBlocksPerProcessor = 64;  // work beyond this many blocks is looped over

template <class Body>
__global__ void __launch_bounds__(kThreads, kResident) each_item(int64_t items, const __grid_constant__ Body body) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += stride) body(item);
}

template <class Body>
__global__ void __launch_bounds__(kThreads, kResident) each_block(int64_t blocks, const __grid_constant__ Body body) {
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) body(block);
}

static inline gg_status check(cudaError_t error, const char* operation) {
  if (error == cudaSuccess) return GG_OK;
  cudaGetLastError();  // forget it: the next call must not report it again
  const bool no_device = error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver;
  return fail(no_device ? GG_NO_CUDA : GG_CUDA_ERROR, "%s on CUDA: %s", operation, cudaGetErrorString(error));
}

// `wanted` blocks, or as many as keep every processor busy for long if that is fewer.
static inline cudaError_t grid_of(int64_t wanted, int64_t blocks_per_processor, unsigned* grid) {
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const int64_t most = processors * blocks_per_processor;
  *grid = static_cast<unsigned>(wanted < most ? wanted : most);
  return error;
}

// body(item) for every item in [0, items), one thread each. The threads of a warp hold consecutive items, the
// first a multiple of 32.
template <class Body>
static gg_status launch_items(const char* operation, int64_t items, void* stream, const Body& body) {
  if (items <= 0) return GG_OK;
  unsigned grid = 0;
  if (gg_status status = check(grid_of(1 + (items - 1) / kThreads, kBlocksPerProcessor, &grid), operation))
    return status;
  each_item<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(items, body);
  return check(cudaGetLastError(), operation);
}

// body(block) for every block in [0, blocks), by all threads of a block together.
template <class Body>
static gg_status launch_blocks(const char* operation, int64_t blocks, void* stream, const Body& body) {
  if (blocks <= 0) return GG_OK;
  unsigned grid = 0;
  if (gg_status status = check(grid_of(blocks, kBlocksPerProcessor, &grid), operation)) return status;
  each_block<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(blocks, body);
  return check(cudaGetLastError(), operation);
}

}  // namespace gg::cuda
