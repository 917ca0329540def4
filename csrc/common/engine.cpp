// The C interface: checks, and the way to the CPU or the CUDA kernel.
#include "cpu_kernels.h"
#include "cuda_kernels.h"
#include "indices.h"
#include "status.h"

#include <initializer_list>

namespace gg {

static gg_status check_place(const gg_place& place) {
  if (place.device != GG_CPU && place.device != GG_CUDA)
    return fail(GG_INVALID_ARGUMENT, "device %d: expected GG_CPU or GG_CUDA", place.device);
  return GG_OK;
}

static gg_status check_dtype(int32_t dtype) {
  if (dtype < GG_FLOAT32 || dtype > GG_BFLOAT16)
    return fail(GG_INVALID_ARGUMENT, "dtype %d: expected float32, float64 or bfloat16", dtype);
  return GG_OK;
}

// Ragged rows come from the caller, unlike the edges of a validated graph: a bad boundary must not become a bad read.
template <class Params>
static gg_status check_segments(const Params& p, const gg_place& place) {
  if (place.device != GG_CPU) return GG_OK;
  const Indices ptr(p.ptr, p.index);
  for (int64_t s = 0; s < p.segments; ++s)
    if (ptr[s] < 0 || ptr[s + 1] < ptr[s] || ptr[s + 1] > p.rows)
      return fail(GG_OUT_OF_RANGE, "ptr: segment %lld is [%lld, %lld), which is not a range within %lld rows",
                  static_cast<long long>(s), static_cast<long long>(ptr[s]), static_cast<long long>(ptr[s + 1]),
                  static_cast<long long>(p.rows));
  return GG_OK;
}
// A code outside its enum would silently take the last branch of a dispatch.
static gg_status check_code(const char* name, int64_t value, int64_t count) {
  if (value >= 0 && value < count) return GG_OK;
  return fail(GG_INVALID_ARGUMENT, "%s %lld: expected 0 to %lld", name, static_cast<long long>(value),
              static_cast<long long>(count - 1));
}
static gg_status first_failure(std::initializer_list<gg_status> checks) {
  for (gg_status status : checks)
    if (status) return status;
  return GG_OK;
}

static gg_status check(const gg_segment_reduce_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2), check_code("reduce", p.reduce, 2), check_segments(p, place)});
}
static gg_status check(const gg_segment_broadcast_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2), check_code("reduce", p.reduce, 2), check_segments(p, place)});
}
static gg_status check_heads(int64_t heads, int64_t features) {
  if (features == 0 || (heads > 0 && features % heads == 0)) return GG_OK;
  return fail(GG_INVALID_ARGUMENT, "%lld features are not a multiple of %lld heads", static_cast<long long>(features),
              static_cast<long long>(heads));
}
static gg_status check(const gg_neighbor_reduce_params& p, const gg_place&) {
  if (p.arg && p.reduce != GG_SUM) return fail(GG_INVALID_ARGUMENT, "neighbor_reduce: only a sum takes arg");
  return first_failure(
      {check_code("index", p.index, 2), check_code("reduce", p.reduce, 4), check_heads(p.heads, p.features)});
}
static gg_status check(const gg_edge_dot_params& p, const gg_place&) {
  return first_failure({check_code("index", p.index, 2), check_heads(p.heads, p.features)});
}
static gg_status check(const gg_edge_softmax_params& p, const gg_place&) { return check_code("index", p.index, 2); }
static gg_status check(const gg_edge_softmax_slope_params& p, const gg_place&) {
  return check_code("index", p.index, 2);
}
static gg_status check(const gg_neighbor_attention_params& p, const gg_place&) {
  return check_code("index", p.index, 2);
}
static gg_status check(const gg_edge_difference_dot_params& p, const gg_place&) {
  return check_code("index", p.index, 2);
}
static gg_status check(const gg_edge_laplacian_params& p, const gg_place&) { return check_code("index", p.index, 2); }
static gg_status check(const gg_rbf_rows_params& p, const gg_place& place) {
  if (place.device != GG_CPU && p.x) return fail(GG_INVALID_ARGUMENT, "rbf_rows on CUDA takes distances, not x");
  return first_failure({check_code("index", p.index, 2), check_code("power", p.power, INT32_MAX)});
}
static gg_status check(const gg_rbf_edges_params& p, const gg_place&) {
  return first_failure({check_code("index", p.index, 2), check_code("power", p.power, INT32_MAX)});
}
static gg_status check(const gg_message_sum_params& p, const gg_place&) {
  if (gg_status status = first_failure({check_code("index", p.index, 2), check_code("order", p.order, GG_ORDERS),
                                        check_code("activation", p.activation, GG_ACTIVATIONS)}))
    return status;
  for (int m = 0; m <= p.order; ++m)
    if (p.out[m].bias && p.rows * p.types * p.features > 0 && !p.partial)
      return fail(GG_INVALID_ARGUMENT, "message_sum by type needs room for partial sums");
  return GG_OK;
}
static gg_status check(const gg_linear_params&, const gg_place&) { return GG_OK; }
static gg_status check(const gg_activate_params& p, const gg_place&) {
  return first_failure(
      {check_code("order", p.order, GG_ORDERS), check_code("activation", p.activation, GG_ACTIVATIONS)});
}
static gg_status check(const gg_softmax_params&, const gg_place&) { return GG_OK; }
static gg_status check(const gg_noise_params& p, const gg_place& place) {
  if (gg_status status =
          first_failure({check_code("distribution", p.distribution, 3), check_code("stream", p.stream, 65536)}))
    return status;
  if (place.device != GG_CPU) return GG_OK;
  const int64_t* ptr = static_cast<const int64_t*>(p.ptr);
  const int64_t* graph_id = static_cast<const int64_t*>(p.graph_id);
  if (ptr[0] != 0) return fail(GG_OUT_OF_RANGE, "ptr: must start at 0, starts at %lld", static_cast<long long>(ptr[0]));
  for (int64_t g = 0; g < p.graphs; ++g) {
    if (ptr[g + 1] < ptr[g])
      return fail(GG_OUT_OF_RANGE, "ptr: falls at graph %lld; it must never fall", static_cast<long long>(g));
    if (graph_id && (graph_id[g] < 0 || graph_id[g] >> 48))
      return fail(GG_INVALID_ARGUMENT, "graph_ids: graph %lld has %lld, which is not in [0, 2^48)",
                  static_cast<long long>(g), static_cast<long long>(graph_id[g]));
  }
  return GG_OK;
}

template <class Params, class CudaKernel>
static gg_status run(const Params* params, const gg_place* place, void (*CpuKernels::*on_cpu)(const Params&, int),
                     CudaKernel on_cuda) {
  if (gg_status status = check_place(*place)) return status;
  if (gg_status status = check_dtype(params->dtype)) return status;
  if (gg_status status = check(*params, *place)) return status;
  if (place->device == GG_CPU) {
    const CpuKernels* kernels = cpu_kernels();
    if (!kernels) return GG_INVALID_ARGUMENT;
    (kernels->*on_cpu)(*params, place->threads);
    return GG_OK;
  }
#ifdef GG_WITH_CUDA
  return on_cuda(*params, place->stream);
#else
  (void)on_cuda;
  return fail(GG_NO_CUDA, "this engine was built without CUDA; reinstall with GRAPHGEN_CUDA=ON");
#endif
}

}  // namespace gg

#ifdef GG_WITH_CUDA
#define GG_CUDA_OR_NULL(kernel) gg::cuda::kernel
#else
#define GG_CUDA_OR_NULL(kernel) nullptr
#endif
#define GG_DEFINE(operation)                                                                          \
  extern "C" gg_status gg_##operation(const gg_##operation##_params* params, const gg_place* place) { \
    return gg::run(params, place, &gg::CpuKernels::operation, GG_CUDA_OR_NULL(operation));            \
  }

GG_OPERATIONS(GG_DEFINE)

extern "C" int32_t gg_built_with_cuda(void) {
#ifdef GG_WITH_CUDA
  return 1;
#else
  return 0;
#endif
}
