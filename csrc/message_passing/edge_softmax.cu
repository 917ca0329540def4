#include "edge_softmax.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

constexpr int kInFlight = 4;  // edges loaded before the first is used

// body(edge, value) for every edge of a row, in order.
template <class S, class Body>
__device__ __forceinline__ void each_edge(const S* array, int64_t first, int64_t last, int64_t heads, Body&& body) {
#pragma unroll 1
  for (int64_t e = first; e < last; e += kInFlight) {
    S value[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u)
      if (e + u < last) value[u] = array[(e + u) * heads];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u)
      if (e + u < last) body(e + u, load_scalar(value + u));
  }
}

// One thread a row and head.
template <class S>
struct EdgeSoftmax {
  using Real = typename Accumulator<S>::Type;
  gg_edge_softmax_params p;
  Indices rowptr;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / p.heads, head = item % p.heads;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    if (first >= last) return;
    const S* logits = static_cast<const S*>(p.logits) + head;
    S* out = static_cast<S*>(p.out) + head;
    Real top = load_scalar(logits + first * p.heads), sum = 0;
    each_edge(logits, first, last, p.heads, [&](int64_t, Real value) { top = higher(top, value); });
    each_edge(logits, first, last, p.heads, [&](int64_t, Real value) { sum += exp_(value - top); });
    const Real scale = Real(1) / sum;
    each_edge(logits, first, last, p.heads,
              [&](int64_t e, Real value) { store_scalar(out + e * p.heads, exp_(value - top) * scale); });
  }
};

// One thread a row and head.
template <class S>
struct EdgeSoftmaxSlope {
  using Real = typename Accumulator<S>::Type;
  gg_edge_softmax_slope_params p;
  Indices rowptr;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = item / p.heads, head = item % p.heads;
    const int64_t first = rowptr[row], last = rowptr[row + 1];
    const S* probability = static_cast<const S*>(p.probability) + head;
    const S* direction = static_cast<const S*>(p.direction) + head;
    S* out = static_cast<S*>(p.out) + head;
    Real mean = 0;
    each_edge(probability, first, last, p.heads,
              [&](int64_t e, Real value) { mean += value * load_scalar(direction + e * p.heads); });
    each_edge(probability, first, last, p.heads, [&](int64_t e, Real value) {
      store_scalar(out + e * p.heads, value * (load_scalar(direction + e * p.heads) - mean));
    });
  }
};

template <template <class> class Kernel, class Params>
gg_status launch_heads(const char* operation, const Params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    const Kernel<typename decltype(dtype)::type> kernel{p, {p.rowptr, p.index}};
    return launch_items(operation, p.rows * p.heads, stream, kernel);
  });
}

}  // namespace

gg_status edge_softmax(const gg_edge_softmax_params& p, void* stream) {
  return launch_heads<EdgeSoftmax>("edge_softmax", p, stream);
}

gg_status edge_softmax_slope(const gg_edge_softmax_slope_params& p, void* stream) {
  return launch_heads<EdgeSoftmaxSlope>("edge_softmax_slope", p, stream);
}

}  // namespace gg::cuda
