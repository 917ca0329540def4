// What becomes of a molecule that is too large: a CUDA call, whose sizes are on the device, cannot return an error.
#pragma once

#include "../common/launch.cuh"
#include "../common/pack.cuh"

#include <math.h>

namespace gg::cuda {

// `count` results that cannot pass for numbers, by all threads of a block together.
template <class S>
__device__ __forceinline__ void refuse(S* out, int64_t count) {
  for (int64_t k = threadIdx.x; k < count; k += kThreads) store_scalar(out + k, NAN);
}

}  // namespace gg::cuda
