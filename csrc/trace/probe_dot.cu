#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "../noise/draw.cuh"
#include "graph_dot.cuh"

namespace gg::cuda {
namespace {

// What the probe is in its dtype.
template <class S>
static __device__ __forceinline__ typename Accumulator<S>::Type stored(float value) {
  S at;
  store_scalar(&at, value);
  return load_scalar(&at);
}

// One warp a graph, as in graph_dot.cuh.
template <class S>
struct ProbeDot {
  using Real = typename Accumulator<S>::Type;
  gg_probe_dot_params p;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t graph = item / kWarp;
    const Elements elements({p.probe.ptr, GG_INT64}, graph, p.rows, p.probe.features);
    const S* pushed = static_cast<const S*>(p.pushed) + elements.first;
    const Real sum = warp_sum<Real>(elements.count, [&](int64_t quad, int64_t left, Real(&terms)[4]) {
      float v[4];
      draw(p.probe, graph, quad, v);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (k < left) terms[k] = stored<S>(v[k]) * load_scalar(pushed + 4 * quad + k);
    });
    if (threadIdx.x % kWarp == 0) store_scalar(static_cast<S*>(p.out) + graph, sum);
  }
};

template <class S>
struct ProbeScale {
  gg_probe_scale_params p;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t graph = item / kWarp;
    const Elements elements({p.probe.ptr, GG_INT64}, graph, p.rows, p.probe.features);
    const auto scale = load_scalar(static_cast<const S*>(p.scale) + graph);
    S* out = static_cast<S*>(p.out) + elements.first;
#pragma unroll 1
    for (int64_t quad = item % kWarp; 4 * quad < elements.count; quad += kWarp) {
      float v[4];
      draw(p.probe, graph, quad, v);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (4 * quad + k < elements.count) store_scalar(out + 4 * quad + k, scale * stored<S>(v[k]));
    }
  }
};

}  // namespace

gg_status probe_dot(const gg_probe_dot_params& p, void* stream) {
  return with_dtype(p.probe.dtype, [&](auto dtype) {
    return launch_items("probe_dot", p.probe.graphs * kWarp, stream, ProbeDot<typename decltype(dtype)::type>{p});
  });
}

gg_status probe_scale(const gg_probe_scale_params& p, void* stream) {
  return with_dtype(p.probe.dtype, [&](auto dtype) {
    return launch_items("probe_scale", p.probe.graphs * kWarp, stream, ProbeScale<typename decltype(dtype)::type>{p});
  });
}

}  // namespace gg::cuda
