// The C interface: checks, and the way to the CPU or the CUDA kernel.
#include "cpu_kernels.h"
#include "../noise/pairs.h"
#include "cuda_kernels.h"
#include "indices.h"
#include "status.h"

#include <stdio.h>

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
static gg_status check_any_dtype(int32_t dtype) {
  if (dtype < GG_FLOAT32 || dtype > GG_DATA_INT64)
    return fail(GG_INVALID_ARGUMENT, "dtype %d: expected float32, float64, bfloat16, int32 or int64", dtype);
  return GG_OK;
}
// The operations that have no dtype, or take integers too.
template <class Params>
static gg_status check_dtype_of(const Params& p) {
  return check_dtype(p.dtype);
}
static gg_status check_dtype_of(const gg_segment_reduce_params& p) { return check_any_dtype(p.dtype); }
static gg_status check_dtype_of(const gg_segment_broadcast_params& p) { return check_any_dtype(p.dtype); }
static gg_status check_dtype_of(const gg_gather_params& p) { return check_any_dtype(p.dtype); }
static gg_status check_dtype_of(const gg_scatter_params& p) {
  if (p.dtype == GG_BFLOAT16) return fail(GG_INVALID_ARGUMENT, "scatter: widen bfloat16 to float32 first");
  return check_any_dtype(p.dtype);
}
static gg_status check_dtype_of(const gg_pick_params& p) { return check_any_dtype(p.dtype); }
static gg_status check_dtype_of(const gg_place_rows_params& p) { return check_any_dtype(p.dtype); }
static gg_status check_dtype_of(const gg_group_rows_params&) { return GG_OK; }
static gg_status check_dtype_of(const gg_segment_others_params& p) {
  if (p.dtype == GG_BFLOAT16) return fail(GG_INVALID_ARGUMENT, "segment_others: widen bfloat16 to float32 first");
  return check_any_dtype(p.dtype);
}
static gg_status check_dtype_of(const gg_norm_mlp_pull_params& p) { return check_dtype(p.of.dtype); }
static gg_status check_dtype_of(const gg_pair_attention_pull_params& p) { return check_dtype(p.of.dtype); }

// A position below 0 has its sign, one past the last makes that of the difference; signs are joined without a branch.
template <class Index>
static bool any_outside(const Index* positions, int64_t count, int64_t end) {
  uint64_t signs = 0;
  for (int64_t k = 0; k < count; ++k) {
    const uint64_t position = static_cast<uint64_t>(int64_t{positions[k]});
    signs |= position | (static_cast<uint64_t>(end) - 1 - position);
  }
  return signs >> 63;
}

// Positions come from the caller too.
static gg_status check_positions(const char* name, const Indices& positions, int64_t count, int64_t columns,
                                 int64_t end, const gg_place& place) {
  if (place.device != GG_CPU) return GG_OK;
  const bool outside = positions.wide ? any_outside(static_cast<const int64_t*>(positions.at), count * columns, end)
                                      : any_outside(static_cast<const int32_t*>(positions.at), count * columns, end);
  if (!outside) return GG_OK;
  int64_t k = 0;
  while (positions[k] >= 0 && positions[k] < end) ++k;
  char where[48];
  snprintf(where, sizeof where, columns == 1 ? "%lld" : "[%lld, %lld]", static_cast<long long>(k / columns),
           static_cast<long long>(k % columns));
  return fail(GG_OUT_OF_RANGE, "%s: position %s has %lld, which is not in [0, %lld)", name, where,
              static_cast<long long>(positions[k]), static_cast<long long>(end));
}

// Ragged rows come from the caller, unlike the edges of a validated graph: a bad boundary must not become a bad read.
template <class Params>
static gg_status check_bounds(const Params& p, const gg_place& place) {
  if (place.device != GG_CPU) return GG_OK;
  const Indices ptr(p.ptr, p.index);
  for (int64_t s = 0; s < p.segments; ++s)
    if (ptr[s] < 0 || ptr[s + 1] < ptr[s] || ptr[s + 1] > p.rows)
      return fail(GG_OUT_OF_RANGE, "ptr: segment %lld is [%lld, %lld), which is not a range within %lld rows",
                  static_cast<long long>(s), static_cast<long long>(ptr[s]), static_cast<long long>(ptr[s + 1]),
                  static_cast<long long>(p.rows));
  return GG_OK;
}
template <class Params>
static gg_status check_segments(const Params& p, const gg_place& place) {
  if (gg_status status = check_bounds(p, place)) return status;
  return p.order ? check_positions("order", {p.order, p.index}, p.rows, 1, p.rows, place) : GG_OK;
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
  return first_failure({check_code("index", p.index, 2), check_code("reduce", p.reduce, 5), check_segments(p, place)});
}
static gg_status check(const gg_segment_others_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2), check_segments(p, place)});
}
static gg_status check_columns(int64_t columns, int64_t features) {
  if (columns == 0 ? features == 0 : features % columns == 0) return GG_OK;
  return fail(GG_INVALID_ARGUMENT, "%lld features are not a multiple of %lld columns", static_cast<long long>(features),
              static_cast<long long>(columns));
}
static gg_status check(const gg_gather_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2),
                        check_positions("index", {p.position, p.index}, p.count, p.columns, p.rows, place),
                        check_columns(p.columns, p.features)});
}
static gg_status check(const gg_scatter_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2), check_code("reduce", p.reduce, 5),
                        check_positions("index", {p.position, p.index}, p.count, p.columns, p.rows, place),
                        check_columns(p.columns, p.features)});
}
static gg_status check(const gg_pick_params&, const gg_place&) { return GG_OK; }
static gg_status check(const gg_place_rows_params&, const gg_place&) { return GG_OK; }
static gg_status check(const gg_group_rows_params& p, const gg_place& place) {
  return first_failure(
      {check_code("index", p.index, 2), check_positions("index", {p.values, p.index}, p.count, 1, p.size, place)});
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
static gg_status check(const gg_message_push_params& p, const gg_place&) {
  return first_failure({check_code("index", p.index, 2), check_code("activation", p.activation, GG_ACTIVATIONS)});
}
static gg_status check(const gg_message_pull_params& p, const gg_place&) {
  if (p.to_bias && p.rows * p.types * p.features > 0 && !p.partial)
    return fail(GG_INVALID_ARGUMENT, "message_pull by type needs room for partial sums");
  return first_failure({check_code("index", p.index, 2), check_code("activation", p.activation, GG_ACTIVATIONS)});
}
static gg_status check(const gg_linear_params&, const gg_place&) { return GG_OK; }
static gg_status check(const gg_activate_params& p, const gg_place&) {
  return first_failure(
      {check_code("order", p.order, GG_ORDERS), check_code("activation", p.activation, GG_ACTIVATIONS)});
}
static gg_status check(const gg_activate_push_params& p, const gg_place&) {
  return check_code("activation", p.activation, GG_ACTIVATIONS);
}
static gg_status check(const gg_activate_pull_params& p, const gg_place&) {
  return check_code("activation", p.activation, GG_ACTIVATIONS);
}
static gg_status check(const gg_softmax_params&, const gg_place&) { return GG_OK; }
static gg_status check_graphs(const gg_graph_noise& noise, int64_t graphs, int64_t rows, const gg_place& place) {
  if (gg_status status = check_code("stream", noise.stream, 65536)) return status;
  if (place.device != GG_CPU) return GG_OK;
  const int64_t* ptr = static_cast<const int64_t*>(noise.ptr);
  const int64_t* graph_id = static_cast<const int64_t*>(noise.graph_id);
  if (ptr[0] != 0) return fail(GG_OUT_OF_RANGE, "ptr: must start at 0, starts at %lld", static_cast<long long>(ptr[0]));
  for (int64_t g = 0; g < graphs; ++g) {
    const int64_t own = ptr[g + 1] - ptr[g];
    if (own < 0)
      return fail(GG_OUT_OF_RANGE, "ptr: falls at graph %lld; it must never fall", static_cast<long long>(g));
    if (noise.symmetric && side_of(own) * side_of(own) != own)
      return fail(GG_OUT_OF_RANGE, "ptr: graph %lld has %lld rows, which is no square: its rows must be pairs of nodes",
                  static_cast<long long>(g), static_cast<long long>(own));
    if (graph_id && (graph_id[g] < 0 || graph_id[g] >> 48))
      return fail(GG_INVALID_ARGUMENT, "graph_ids: graph %lld has %lld, which is not in [0, 2^48)",
                  static_cast<long long>(g), static_cast<long long>(graph_id[g]));
  }
  if (ptr[graphs] != rows)
    return fail(GG_OUT_OF_RANGE, "ptr: must end at the %lld rows there are, ends at %lld", static_cast<long long>(rows),
                static_cast<long long>(ptr[graphs]));
  return GG_OK;
}
static gg_status check(const gg_noise_params& p, const gg_place& place) {
  return first_failure({check_code("distribution", p.distribution, 3), check_graphs(p.noise, p.graphs, p.rows, place)});
}

static gg_status check_times(const char* name, const double* times, double time, int64_t graphs, double cell) {
  for (int64_t g = 0; g < (times ? graphs : 1); ++g) {
    const double at = times ? times[g] : time;
    if (!(at / cell > -2147483648.0 && at / cell < 2147483647.0))
      return fail(GG_INVALID_ARGUMENT, "%s %g is not within 2^31 cells of length %g", name, at, cell);
  }
  return GG_OK;
}
static gg_status check(const gg_brownian_params& p, const gg_place& place) {
  if (!(p.cell > 0.0 && p.cell <= 1e300)) return fail(GG_INVALID_ARGUMENT, "cell %g: expected a length", p.cell);
  if (p.noise.symmetric) return fail(GG_INVALID_ARGUMENT, "brownian: pairs have no paths of their own");
  if (gg_status status = check_code("depth", p.depth, 48)) return status;
  if (gg_status status = check_graphs(p.noise, p.graphs, p.rows, place)) return status;
  const bool here = place.device == GG_CPU;
  if (here || !p.start)
    if (gg_status status = check_times("start", p.start, p.start_time, p.graphs, p.cell)) return status;
  return here || !p.end ? check_times("end", p.end, p.end_time, p.graphs, p.cell) : GG_OK;
}

static gg_status check_keep(const uint8_t* keep, int64_t keep_features, int64_t features) {
  if (!keep || keep_features == 1 || keep_features == features) return GG_OK;
  return fail(GG_INVALID_ARGUMENT, "keep has %lld features: expected 1 or %lld", static_cast<long long>(keep_features),
              static_cast<long long>(features));
}
static gg_status check(const gg_affine_noise_step_params& p, const gg_place& place) {
  if (p.keep && p.terms == 0) return fail(GG_INVALID_ARGUMENT, "keep needs a term that is kept");
  return first_failure({check_code("terms", p.terms, GG_TERMS + 1), check_keep(p.keep, p.keep_features, p.features),
                        check_graphs(p.noise, p.graphs, p.rows, place)});
}
static gg_status check(const gg_noise_dot_params& p, const gg_place& place) {
  return first_failure({check_code("power", p.power, 3), check_keep(p.keep, p.keep_features, p.features),
                        check_graphs(p.noise, p.graphs, p.rows, place)});
}
static gg_status check(const gg_embedded_step_params& p, const gg_place& place) {
  if (p.step.terms == 0 || p.step.noisy || p.step.keep)
    return fail(GG_INVALID_ARGUMENT, "embedded_step takes a state and its stages, and neither noise nor keep");
  return check(p.step, place);
}

static gg_status check(const gg_step_control_params& p, const gg_place&) {
  return first_failure({check_code("parts", p.parts, GG_PARTS + 1), check_code("stages", p.stages, GG_STAGES + 1),
                        check_code("order", p.order, 9)});
}

static gg_status check(const gg_graph_dot_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2), check_bounds(p, place)});
}
static gg_status check(const gg_graph_combine_params& p, const gg_place& place) {
  return first_failure({check_code("index", p.index, 2), check_bounds(p, place)});
}

static gg_status check_wide(int32_t dtype, const gg_place& place) {
  if (place.device != GG_CPU || dtype != GG_BFLOAT16) return GG_OK;
  return fail(GG_INVALID_ARGUMENT, "bfloat16 has no kernel on the CPU: widen to float32");
}
static gg_status check_norm(int32_t dtype, int64_t width, int64_t other, const gg_place& place) {
  if (gg_status status = check_wide(dtype, place)) return status;
  if (place.device != GG_CPU || (width <= GG_NORM_WIDTH && other <= GG_NORM_WIDTH)) return GG_OK;
  return fail(GG_INVALID_ARGUMENT, "widths %lld and %lld: at most %d on the CPU", static_cast<long long>(width),
              static_cast<long long>(other), GG_NORM_WIDTH);
}
static gg_status check(const gg_norm_linear_params& p, const gg_place& place) {
  return check_norm(p.dtype, p.inner, 0, place);
}
static gg_status check(const gg_norm_linear_pull_params& p, const gg_place& place) {
  return check_norm(p.dtype, p.inner, 0, place);
}
// Every molecule's pairs must be as many as its atoms make, and all within the arrays.
static gg_status check_pairs(const gg_pairs& pairs, int64_t most, const gg_place& place) {
  if (place.device != GG_CPU) return GG_OK;
  const int64_t* ptr = static_cast<const int64_t*>(pairs.ptr);
  const int64_t* pair_ptr = static_cast<const int64_t*>(pairs.pair_ptr);
  for (int64_t g = 0; g < pairs.molecules; ++g) {
    const int64_t n = ptr[g + 1] - ptr[g];
    if (n < 0 || n > most)
      return fail(GG_OUT_OF_RANGE, "ptr: molecule %lld has %lld atoms, expected 0 to %lld", static_cast<long long>(g),
                  static_cast<long long>(n), static_cast<long long>(most));
    if (pair_ptr[g + 1] - pair_ptr[g] != n * (n - 1) / 2)
      return fail(GG_OUT_OF_RANGE, "pair_ptr: molecule %lld of %lld atoms has %lld pairs", static_cast<long long>(g),
                  static_cast<long long>(n), static_cast<long long>(pair_ptr[g + 1] - pair_ptr[g]));
  }
  return GG_OK;
}
static gg_status check(const gg_norm_mlp_params& p, const gg_place& place) {
  if (p.ends && place.device == GG_CPU && static_cast<const int64_t*>(p.pairs.pair_ptr)[p.pairs.molecules] != p.rows)
    return fail(GG_OUT_OF_RANGE, "pair_ptr: must end at the %lld rows there are", static_cast<long long>(p.rows));
  return first_failure({check_norm(p.dtype, p.width, p.inner, place), check_pairs(p.pairs, INT32_MAX, place)});
}
static gg_status check(const gg_norm_mlp_pull_params& p, const gg_place& place) { return check(p.of, place); }
static gg_status check(const gg_pair_attention_params& p, const gg_place& place) {
  if (gg_status status = first_failure({check_wide(p.dtype, place), check_heads(p.heads, p.width)})) return status;
  if (place.device == GG_CPU && p.heads > 0 && p.width / p.heads > GG_HEAD_WIDTH)
    return fail(GG_INVALID_ARGUMENT, "heads of width %lld: at most %d on the CPU",
                static_cast<long long>(p.width / p.heads), GG_HEAD_WIDTH);
  return check_pairs(p.pairs, GG_PAIR_ATOMS, place);
}
static gg_status check(const gg_pair_attention_pull_params& p, const gg_place& place) { return check(p.of, place); }
static gg_status check(const gg_pair_walks_params& p, const gg_place& place) {
  return first_failure({check_wide(p.dtype, place), check_pairs(p.pairs, GG_PAIR_ATOMS, place)});
}

template <class Params, class CudaKernel>
static gg_status run(const Params* params, const gg_place* place, void (*CpuKernels::*on_cpu)(const Params&, int),
                     CudaKernel on_cuda) {
  if (gg_status status = check_place(*place)) return status;
  if (gg_status status = check_dtype_of(*params)) return status;
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
