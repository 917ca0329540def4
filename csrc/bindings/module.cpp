// pybind11: addresses and integers in, status out; no logic.
#include "../graphgen.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <vector>

namespace py = pybind11;

using Address = uintptr_t;  // 0 is a null pointer

static const void* in(Address address) { return reinterpret_cast<const void*>(address); }
static void* out(Address address) { return reinterpret_cast<void*>(address); }
static gg_place place(int device, int threads, Address stream) { return {device, threads, out(stream)}; }

static gg_graph_noise graph_noise(Address ptr, Address graph_id, Address step_at, uint64_t seed, uint32_t stream,
                                  uint32_t step, bool symmetric) {
  return {in(ptr), in(graph_id), static_cast<const int64_t*>(in(step_at)), seed, stream, step, symmetric};
}

// At most GG_TERMS of each, as many coefficients and scales as terms: the callers' word.
static gg_affine_noise_step_params affine_step(const std::vector<Address>& terms,
                                               const std::vector<Address>& coefficients,
                                               const std::vector<double>& scales) {
  gg_affine_noise_step_params p{};
  p.terms = static_cast<int32_t>(terms.size());
  for (int k = 0; k < p.terms; ++k) {
    p.term[k] = in(terms[k]);
    p.coefficient[k] = in(coefficients[k]);
    p.scale[k] = scales[k];
  }
  return p;
}

static gg_norm_mlp_params norm_mlp(const std::array<Address, 9>& parts, const std::array<Address, 2>& pairs,
                                   int64_t molecules, int64_t rows, int64_t width, int64_t inner, int64_t heads,
                                   int dtype) {
  return {in(parts[0]), in(parts[1]), in(parts[2]), in(parts[3]),  in(parts[4]),
          in(parts[5]), in(parts[6]), in(parts[7]), out(parts[8]), {in(pairs[0]), in(pairs[1]), molecules},
          rows,         width,        inner,        heads,         dtype};
}

// The calls of a Runge-Kutta step of one array, prepared: what stays the same from step to step is converted once.
class RungeKuttaCalls {
 public:
  RungeKuttaCalls(const std::vector<std::vector<double>>& rows, const std::vector<double>& weights,
                  const std::vector<double>& error_weights, Address ptr, Address h, Address norm, Address partial,
                  double atol, double rtol, int64_t graphs, int64_t row_count, int64_t features, int dtype, int device)
      : device_(device) {
    gg_affine_noise_step_params common{};
    common.noise.ptr = in(ptr);
    common.graphs = graphs;
    common.rows = row_count;
    common.features = features;
    common.dtype = dtype;
    for (const std::vector<double>& row : rows) stages_.emplace_back(common, row, h, false);
    stages_.emplace_back(common, weights, h, true);
    error_.dtype = dtype;
    error_.atol = atol;
    error_.rtol = rtol;
    error_.norm = out(norm);
    error_.partial = static_cast<double*>(out(partial));
    std::copy(error_weights.begin(), error_weights.end(), error_.error_scale + 1);
  }

  // The state at stage i, given the slope at the stage before.
  int stage(int i, Address y, Address slope, Address result, int threads, Address stream) {
    slopes_[i - 1] = in(slope);
    const gg_affine_noise_step_params& p = stages_[i].at(y, slopes_, result);
    gg_place where = place(device_, threads, stream);
    return static_cast<int>(gg_affine_noise_step(&p, &where));
  }

  // The error norm and, unless null, the result, given the last slope.
  int finish(Address y, Address slope, Address result, int threads, Address stream) {
    slopes_[stages_.size() - 2] = in(slope);
    error_.step = stages_.back().at(y, slopes_, result);
    gg_place where = place(device_, threads, stream);
    return static_cast<int>(gg_embedded_step(&error_, &where));
  }

 private:
  struct Combination {
    gg_affine_noise_step_params p;
    int slope[GG_TERMS];  // which one a term is

    Combination(const gg_affine_noise_step_params& common, const std::vector<double>& weights, Address h, bool all)
        : p(common) {
      p.scale[p.terms++] = 1;
      for (int k = 0; k < static_cast<int>(weights.size()); ++k) {
        if (weights[k] == 0 && !all) continue;
        slope[p.terms] = k;
        p.coefficient[p.terms] = in(h);
        p.scale[p.terms++] = weights[k];
      }
    }
    const gg_affine_noise_step_params& at(Address y, const void* const* slopes, Address result) {
      p.term[0] = in(y);
      for (int k = 1; k < p.terms; ++k) p.term[k] = slopes[slope[k]];
      p.out = out(result);
      return p;
    }
  };

  std::vector<Combination> stages_;  // and the result behind them
  gg_embedded_step_params error_{};
  const void* slopes_[GG_STAGES] = {};
  int device_;
};

// The same for the calls between steps.
class StepControlCalls {
 public:
  StepControlCalls(const std::vector<Address>& norms, const std::vector<Address>& ptrs,
                   const std::vector<int64_t>& features, Address done, Address length, Address h, Address time,
                   Address accepted, Address failed_at, Address counts, const std::vector<double>& nodes, double start,
                   double direction, double span, double safety, double shrink, double grow, double smallest,
                   int64_t graphs, int64_t equal_steps, int order, int dtype, int device)
      : parts_(static_cast<int>(norms.size())), device_(device) {
    for (int k = 0; k < parts_; ++k) {
      p_.norm[k] = in(norms[k]);
      p_.ptr[k] = in(ptrs[k]);
      p_.features[k] = features[k];
    }
    p_.done = static_cast<double*>(out(done));
    p_.length = static_cast<double*>(out(length));
    p_.h = out(h);
    p_.time = out(time);
    p_.accepted = static_cast<uint8_t*>(out(accepted));
    p_.failed_at = static_cast<int64_t*>(out(failed_at));
    p_.counts = static_cast<int64_t*>(out(counts));
    std::copy(nodes.begin(), nodes.end(), p_.node);
    p_.start = start;
    p_.direction = direction;
    p_.span = span;
    p_.safety = safety;
    p_.shrink = shrink;
    p_.grow = grow;
    p_.smallest = smallest;
    p_.graphs = graphs;
    p_.equal_steps = equal_steps;
    p_.stages = static_cast<int32_t>(nodes.size());
    p_.order = order;
    p_.dtype = dtype;
  }

  // After the step of this number; before the first if `tried` is false.
  int run(int64_t step, bool tried, int threads, Address stream) {
    p_.step = step;
    p_.parts = tried ? parts_ : 0;
    gg_place where = place(device_, threads, stream);
    return static_cast<int>(gg_step_control(&p_, &where));
  }

 private:
  gg_step_control_params p_{};
  int parts_, device_;
};

PYBIND11_MODULE(_C, module) {
  using release = py::call_guard<py::gil_scoped_release>;

  module.def("message", [] { return gg_message(); });
  module.def("instruction_set", [] { return gg_instruction_set(); });
  module.def("built_with_cuda", [] { return gg_built_with_cuda() != 0; });
  module.def("lend_openmp", [](Address gomp_parallel) { gg_lend_openmp(out(gomp_parallel)); });

  module.def(
      "segment_reduce",
      [](Address src, Address ptr, Address order, Address result, Address arg, int64_t segments, int64_t features,
         int dtype, int index, int reduce, int64_t rows, int device, int threads, Address stream) {
        gg_segment_reduce_params p{in(src),  in(ptr),  in(order), out(result), static_cast<int64_t*>(out(arg)),
                                   segments, features, dtype,     index,       reduce,
                                   rows};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_segment_reduce(&p, &where));
      },
      release());
  module.def(
      "segment_broadcast",
      [](Address src, Address ptr, Address order, Address result, int64_t segments, int64_t features, int dtype,
         int index, int reduce, int64_t rows, int device, int threads, Address stream) {
        gg_segment_broadcast_params p{in(src),  in(ptr), in(order), out(result), segments,
                                      features, dtype,   index,     reduce,      rows};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_segment_broadcast(&p, &where));
      },
      release());
  module.def(
      "segment_others",
      [](Address src, Address ptr, Address order, Address result, int64_t segments, int64_t features, int dtype,
         int index, int64_t rows, int device, int threads, Address stream) {
        gg_segment_others_params p{in(src), in(ptr), in(order), out(result), segments, features, dtype, index, rows};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_segment_others(&p, &where));
      },
      release());
  module.def(
      "scatter",
      [](Address src, Address position, Address result, Address arg, Address arrived, int64_t count, int64_t rows,
         int64_t features, int64_t columns, int dtype, int index, int reduce, int device, int threads, Address stream) {
        gg_scatter_params p{in(src),
                            in(position),
                            out(result),
                            static_cast<int64_t*>(out(arg)),
                            static_cast<int64_t*>(out(arrived)),
                            count,
                            rows,
                            features,
                            columns,
                            dtype,
                            index,
                            reduce};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_scatter(&p, &where));
      },
      release());
  module.def(
      "gather",
      [](Address src, Address position, Address result, int64_t rows, int64_t features, int64_t count, int64_t columns,
         int dtype, int index, int device, int threads, Address stream) {
        gg_gather_params p{in(src), in(position), out(result), rows, features, count, columns, dtype, index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_gather(&p, &where));
      },
      release());
  module.def(
      "pick",
      [](Address src, Address arg, Address result, int64_t rows, int64_t features, int64_t count, int dtype, int device,
         int threads, Address stream) {
        gg_pick_params p{in(src), static_cast<const int64_t*>(in(arg)), out(result), rows, features, count, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_pick(&p, &where));
      },
      release());
  module.def(
      "place_rows",
      [](Address src, Address arg, Address result, int64_t rows, int64_t features, int64_t count, int dtype, int device,
         int threads, Address stream) {
        gg_place_rows_params p{in(src), static_cast<const int64_t*>(in(arg)), out(result), rows, features, count,
                               dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_place_rows(&p, &where));
      },
      release());
  module.def(
      "group_rows",
      [](Address values, Address ptr, Address order, int64_t count, int64_t size, int index, int device, int threads,
         Address stream) {
        gg_group_rows_params p{in(values), out(ptr), out(order), count, size, index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_group_rows(&p, &where));
      },
      release());
  module.def(
      "neighbor_reduce",
      [](Address x, Address weight, Address arg, Address rowptr, Address neighbor, Address edge, Address result,
         Address result_arg, int64_t rows, int64_t features, int64_t heads, int64_t edges, int dtype, int index,
         int reduce, int arg_of_neighbor, int device, int threads, Address stream) {
        gg_neighbor_reduce_params p{in(x),
                                    in(weight),
                                    static_cast<const int64_t*>(in(arg)),
                                    in(rowptr),
                                    in(neighbor),
                                    in(edge),
                                    out(result),
                                    static_cast<int64_t*>(out(result_arg)),
                                    rows,
                                    features,
                                    heads,
                                    edges,
                                    dtype,
                                    index,
                                    reduce,
                                    arg_of_neighbor};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_neighbor_reduce(&p, &where));
      },
      release());
  module.def(
      "edge_dot",
      [](Address target, Address source, Address arg, Address rowptr, Address neighbor, Address edge, Address result,
         int64_t rows, int64_t features, int64_t heads, int dtype, int index, int arg_of_neighbor, int device,
         int threads, Address stream) {
        gg_edge_dot_params p{in(target),     in(source),   static_cast<const int64_t*>(in(arg)),
                             in(rowptr),     in(neighbor), in(edge),
                             out(result),    rows,         features,
                             heads,          dtype,        index,
                             arg_of_neighbor};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_edge_dot(&p, &where));
      },
      release());
  // Addresses: the target, source and bias of every term, then those of every output; 0 where there is none.
  module.def(
      "edge_softmax",
      [](Address logits, Address rowptr, Address result, int64_t rows, int64_t heads, int dtype, int index, int device,
         int threads, Address stream) {
        gg_edge_softmax_params p{in(logits), in(rowptr), out(result), rows, heads, dtype, index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_edge_softmax(&p, &where));
      },
      release());
  module.def(
      "edge_softmax_slope",
      [](Address probability, Address direction, Address rowptr, Address result, int64_t rows, int64_t heads, int dtype,
         int index, int device, int threads, Address stream) {
        gg_edge_softmax_slope_params p{in(probability), in(direction), in(rowptr), out(result), rows,
                                       heads,           dtype,         index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_edge_softmax_slope(&p, &where));
      },
      release());
  module.def(
      "neighbor_attention",
      [](Address q, Address k, Address v, Address bias, Address rowptr, Address neighbor, Address result, int64_t rows,
         int64_t heads, int64_t width, int64_t value_width, double scale, int dtype, int index, int device, int threads,
         Address stream) {
        gg_neighbor_attention_params p{in(q), in(k), in(v), in(bias),    in(rowptr), in(neighbor), out(result),
                                       rows,  heads, width, value_width, scale,      dtype,        index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_neighbor_attention(&p, &where));
      },
      release());
  module.def(
      "edge_difference_dot",
      [](Address a, Address b, Address rowptr, Address neighbor, Address result, int64_t rows, int64_t features,
         int dtype, int index, int root, int device, int threads, Address stream) {
        gg_edge_difference_dot_params p{in(a), in(b),    in(rowptr), in(neighbor), out(result),
                                        rows,  features, dtype,      index,        root};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_edge_difference_dot(&p, &where));
      },
      release());
  module.def(
      "edge_laplacian",
      [](Address weight, Address x, Address rowptr, Address neighbor, Address edge, Address rowptr_t,
         Address neighbor_t, Address edge_t, Address result, int64_t rows, int64_t features, int dtype, int index,
         int device, int threads, Address stream) {
        gg_edge_laplacian_params p{in(weight),
                                   in(x),
                                   {in(rowptr), in(rowptr_t)},
                                   {in(neighbor), in(neighbor_t)},
                                   {in(edge), in(edge_t)},
                                   out(result),
                                   rows,
                                   features,
                                   dtype,
                                   index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_edge_laplacian(&p, &where));
      },
      release());
  module.def(
      "rbf_rows",
      [](Address weight, Address distance, Address x, Address rowptr, Address neighbor, Address centers, Address gamma,
         Address result, int64_t rows, int64_t bases, int64_t features, int power, int dtype, int index, int device,
         int threads, Address stream) {
        gg_rbf_rows_params p{in(weight),  in(distance), in(x), in(rowptr), in(neighbor), in(centers), in(gamma),
                             out(result), rows,         bases, features,   power,        dtype,       index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_rbf_rows(&p, &where));
      },
      release());
  module.def(
      "rbf_edges",
      [](Address rows_of, Address distance, Address rowptr, Address centers, Address gamma, Address result,
         int64_t rows, int64_t bases, int power, int dtype, int index, int device, int threads, Address stream) {
        gg_rbf_edges_params p{in(rows_of), in(distance), in(rowptr), in(centers), in(gamma), out(result),
                              rows,        bases,        power,      dtype,       index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_rbf_edges(&p, &where));
      },
      release());
  module.def(
      "message_sum",
      [](const std::array<Address, 6 * GG_ORDERS>& parts, const std::array<Address, 6>& edges, Address partial,
         int64_t rows, int64_t features, int64_t types, int order, int activation, int dtype, int index, int device,
         int threads, Address stream) {
        gg_message_sum_params p{};
        for (int m = 0; m < GG_ORDERS; ++m) {
          const Address *term = &parts[3 * m], *result = &parts[3 * (GG_ORDERS + m)];
          p.term[m] = {in(term[0]), in(term[1]), in(term[2])};
          p.out[m] = {out(result[0]), out(result[1]), out(result[2])};
        }
        p.by_target = {in(edges[0]), in(edges[1]), in(edges[2])};
        p.by_source = {in(edges[3]), in(edges[4]), in(edges[5])};
        p.partial = out(partial);
        p.rows = rows;
        p.features = features;
        p.types = types;
        p.order = order;
        p.activation = activation;
        p.dtype = dtype;
        p.index = index;
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_message_sum(&p, &where));
      },
      release());
  // Addresses: target, source, bias, target_along, source_along, value, tangent; those of the edges; home and so on.
  module.def(
      "message_push",
      [](const std::array<Address, 7>& parts, const std::array<Address, 3>& edges,
         const std::array<Address, 4>& where_to, int64_t rows, int64_t target_rows, int64_t source_rows,
         int64_t features, int64_t count, int activation, int dtype, int index, int device, int threads,
         Address stream) {
        gg_message_push_params p{in(parts[0]),
                                 in(parts[1]),
                                 in(parts[2]),
                                 in(parts[3]),
                                 in(parts[4]),
                                 out(parts[5]),
                                 out(parts[6]),
                                 {in(edges[0]), in(edges[1]), in(edges[2])},
                                 in(where_to[0]),
                                 in(where_to[1]),
                                 in(where_to[2]),
                                 in(where_to[3]),
                                 rows,
                                 target_rows,
                                 source_rows,
                                 features,
                                 count,
                                 activation,
                                 dtype,
                                 index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_message_push(&p, &where));
      },
      release());
  // Addresses: target, source, bias, target_along, source_along, value_grad, tangent_grad; then those of the outputs.
  module.def(
      "message_pull",
      [](const std::array<Address, 7>& parts, const std::array<Address, 5>& results,
         const std::array<Address, 6>& edges, Address partial, int64_t rows, int64_t features, int64_t types,
         int64_t count, int activation, int dtype, int index, int device, int threads, Address stream) {
        gg_message_pull_params p{in(parts[0]),
                                 in(parts[1]),
                                 in(parts[2]),
                                 in(parts[3]),
                                 in(parts[4]),
                                 in(parts[5]),
                                 in(parts[6]),
                                 out(results[0]),
                                 out(results[1]),
                                 out(results[2]),
                                 out(results[3]),
                                 out(results[4]),
                                 {in(edges[0]), in(edges[1]), in(edges[2])},
                                 {in(edges[3]), in(edges[4]), in(edges[5])},
                                 out(partial),
                                 rows,
                                 features,
                                 types,
                                 count,
                                 activation,
                                 dtype,
                                 index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_message_pull(&p, &where));
      },
      release());
  module.def(
      "linear",
      [](Address x, Address weight, Address bias, Address result, int64_t rows, int64_t inner, int64_t outer, int dtype,
         int device, int threads, Address stream) {
        gg_linear_params p{in(x), in(weight), in(bias), out(result), rows, inner, outer, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_linear(&p, &where));
      },
      release());
  module.def(
      "norm_linear",
      [](Address x, Address weight, Address bias, Address result, int64_t rows, int64_t inner, int64_t outer, int dtype,
         int device, int threads, Address stream) {
        gg_norm_linear_params p{in(x), in(weight), in(bias), out(result), rows, inner, outer, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_norm_linear(&p, &where));
      },
      release());
  module.def(
      "norm_linear_pull",
      [](Address x, Address weight, Address grad, Address to_x, Address normal, int64_t rows, int64_t inner,
         int64_t outer, int dtype, int device, int threads, Address stream) {
        gg_norm_linear_pull_params p{in(x), in(weight), in(grad), out(to_x), out(normal), rows, inner, outer, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_norm_linear_pull(&p, &where));
      },
      release());
  // Addresses: x, own, first_bias, ends, logits, of_logits, weight, bias, the result; ptr and pair_ptr.
  module.def(
      "norm_mlp",
      [](const std::array<Address, 9>& parts, const std::array<Address, 2>& pairs, int64_t molecules, int64_t rows,
         int64_t width, int64_t inner, int64_t heads, int dtype, int device, int threads, Address stream) {
        const gg_norm_mlp_params p = norm_mlp(parts, pairs, molecules, rows, width, inner, heads, dtype);
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_norm_mlp(&p, &where));
      },
      release());
  // And: own_t, of_logits_t, weight_t, grad; to_x, to_ends, to_logits, normal, hidden, to_met.
  module.def(
      "norm_mlp_pull",
      [](const std::array<Address, 9>& parts, const std::array<Address, 10>& more, const std::array<Address, 2>& pairs,
         int64_t molecules, int64_t rows, int64_t width, int64_t inner, int64_t heads, int dtype, int device,
         int threads, Address stream) {
        gg_norm_mlp_pull_params p{norm_mlp(parts, pairs, molecules, rows, width, inner, heads, dtype),
                                  in(more[0]),
                                  in(more[1]),
                                  in(more[2]),
                                  in(more[3]),
                                  out(more[4]),
                                  out(more[5]),
                                  out(more[6]),
                                  out(more[7]),
                                  out(more[8]),
                                  out(more[9])};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_norm_mlp_pull(&p, &where));
      },
      release());
  module.def(
      "pair_attention",
      [](Address query_key_value, Address bias_gate, Address result, Address logits, Address ptr, Address pair_ptr,
         int64_t molecules, int64_t width, int64_t heads, int dtype, int device, int threads, Address stream) {
        gg_pair_attention_params p{in(query_key_value),
                                   in(bias_gate),
                                   out(result),
                                   out(logits),
                                   {in(ptr), in(pair_ptr), molecules},
                                   width,
                                   heads,
                                   dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_pair_attention(&p, &where));
      },
      release());
  module.def(
      "pair_attention_pull",
      [](Address query_key_value, Address bias_gate, Address grad, Address logits_grad, Address to_query_key_value,
         Address to_bias_gate, Address ptr, Address pair_ptr, int64_t molecules, int64_t width, int64_t heads,
         int dtype, int device, int threads, Address stream) {
        gg_pair_attention_pull_params p{{in(query_key_value),
                                         in(bias_gate),
                                         nullptr,
                                         nullptr,
                                         {in(ptr), in(pair_ptr), molecules},
                                         width,
                                         heads,
                                         dtype},
                                        in(grad),
                                        in(logits_grad),
                                        out(to_query_key_value),
                                        out(to_bias_gate)};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_pair_attention_pull(&p, &where));
      },
      release());
  module.def(
      "pair_walks",
      [](Address bonded, Address returns, Address walks, Address ptr, Address pair_ptr, int64_t molecules,
         int64_t length, int dtype, int device, int threads, Address stream) {
        gg_pair_walks_params p{in(bonded), out(returns), out(walks), {in(ptr), in(pair_ptr), molecules}, length, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_pair_walks(&p, &where));
      },
      release());
  // Addresses: those of the terms, then those of the outputs.
  module.def(
      "activate",
      [](const std::array<Address, 2 * GG_ORDERS>& parts, int64_t count, int order, int activation, int dtype,
         int device, int threads, Address stream) {
        gg_activate_params p{};
        for (int m = 0; m < GG_ORDERS; ++m) {
          p.x[m] = in(parts[m]);
          p.out[m] = out(parts[GG_ORDERS + m]);
        }
        p.count = count;
        p.order = order;
        p.activation = activation;
        p.dtype = dtype;
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_activate(&p, &where));
      },
      release());
  // Addresses: x, y, skip, x_along, y_along, skip_along, value, tangent.
  module.def(
      "activate_push",
      [](const std::array<Address, 8>& parts, int64_t size, int64_t count, int activation, int dtype, int device,
         int threads, Address stream) {
        gg_activate_push_params p{in(parts[0]),  in(parts[1]),  in(parts[2]), in(parts[3]), in(parts[4]), in(parts[5]),
                                  out(parts[6]), out(parts[7]), size,         count,        activation,   dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_activate_push(&p, &where));
      },
      release());
  // Addresses: x, y, x_along, y_along, value_grad, tangent_grad, to_z, to_along.
  module.def(
      "activate_pull",
      [](const std::array<Address, 8>& parts, int64_t size, int64_t count, int activation, int dtype, int device,
         int threads, Address stream) {
        gg_activate_pull_params p{in(parts[0]),  in(parts[1]),  in(parts[2]), in(parts[3]), in(parts[4]), in(parts[5]),
                                  out(parts[6]), out(parts[7]), size,         count,        activation,   dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_activate_pull(&p, &where));
      },
      release());
  module.def(
      "softmax",
      [](Address x, Address result, int64_t rows, int64_t features, int dtype, int device, int threads,
         Address stream) {
        gg_softmax_params p{in(x), out(result), rows, features, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_softmax(&p, &where));
      },
      release());
  module.def(
      "noise",
      [](Address ptr, Address graph_id, Address step_at, uint64_t seed, uint32_t number, uint32_t step, bool symmetric,
         Address result, int64_t graphs, int64_t rows, int64_t features, int distribution, int dtype, int device,
         int threads, Address stream) {
        gg_noise_params p{graph_noise(ptr, graph_id, step_at, seed, number, step, symmetric),
                          out(result),
                          graphs,
                          rows,
                          features,
                          distribution,
                          dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_noise(&p, &where));
      },
      release());
  module.def(
      "brownian",
      [](Address ptr, Address graph_id, uint64_t seed, uint32_t number, Address start, Address end, double start_time,
         double end_time, double cell, int depth, Address result, Address integral, int64_t graphs, int64_t rows,
         int64_t features, int dtype, int device, int threads, Address stream) {
        gg_brownian_params p{graph_noise(ptr, graph_id, 0, seed, number, 0, false),
                             static_cast<const double*>(in(start)),
                             static_cast<const double*>(in(end)),
                             start_time,
                             end_time,
                             cell,
                             out(result),
                             out(integral),
                             graphs,
                             rows,
                             features,
                             depth,
                             dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_brownian(&p, &where));
      },
      release());
  // Terms: their addresses, those of their coefficients, their scales.
  module.def(
      "affine_noise_step",
      [](Address ptr, Address graph_id, Address step_at, uint64_t seed, uint32_t number, uint32_t step, bool symmetric,
         const std::vector<Address>& terms, const std::vector<Address>& coefficients, const std::vector<double>& scales,
         bool noisy, Address diffusion, Address amplitude, double amplitude_scale, Address keep, int64_t keep_features,
         Address result, Address broken, int64_t graphs, int64_t rows, int64_t features, int dtype, int device,
         int threads, Address stream) {
        gg_affine_noise_step_params p = affine_step(terms, coefficients, scales);
        p.noise = graph_noise(ptr, graph_id, step_at, seed, number, step, symmetric);
        p.noisy = noisy;
        p.diffusion = in(diffusion);
        p.amplitude = in(amplitude);
        p.amplitude_scale = amplitude_scale;
        p.keep = static_cast<const uint8_t*>(in(keep));
        p.keep_features = keep_features;
        p.out = out(result);
        p.broken = static_cast<int64_t*>(out(broken));
        p.graphs = graphs;
        p.rows = rows;
        p.features = features;
        p.dtype = dtype;
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_affine_noise_step(&p, &where));
      },
      release());
  module.def(
      "noise_dot",
      [](Address ptr, Address graph_id, Address step_at, uint64_t seed, uint32_t number, uint32_t step, bool symmetric,
         Address a, Address b, int power, Address keep, int64_t keep_features, Address result, Address partial,
         int64_t graphs, int64_t rows, int64_t features, int dtype, int device, int threads, Address stream) {
        gg_noise_dot_params p{graph_noise(ptr, graph_id, step_at, seed, number, step, symmetric),
                              in(a),
                              in(b),
                              static_cast<const uint8_t*>(in(keep)),
                              out(result),
                              static_cast<double*>(out(partial)),
                              graphs,
                              rows,
                              features,
                              keep_features,
                              power,
                              dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_noise_dot(&p, &where));
      },
      release());
  module.def(
      "embedded_step",
      [](Address ptr, const std::vector<Address>& terms, const std::vector<Address>& coefficients,
         const std::vector<double>& scales, const std::vector<double>& error_scales, double atol, double rtol,
         Address result, Address norm, Address partial, int64_t graphs, int64_t rows, int64_t features, int dtype,
         int device, int threads, Address stream) {
        gg_embedded_step_params p{affine_step(terms, coefficients, scales), {},   atol, rtol, out(norm),
                                  static_cast<double*>(out(partial)),       dtype};
        std::copy(error_scales.begin(), error_scales.end(), p.error_scale);
        p.step.noise.ptr = in(ptr);
        p.step.out = out(result);
        p.step.graphs = graphs;
        p.step.rows = rows;
        p.step.features = features;
        p.step.dtype = dtype;
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_embedded_step(&p, &where));
      },
      release());
  py::class_<RungeKuttaCalls>(module, "RungeKuttaCalls")
      .def(py::init<const std::vector<std::vector<double>>&, const std::vector<double>&, const std::vector<double>&,
                    Address, Address, Address, Address, double, double, int64_t, int64_t, int64_t, int, int>())
      .def("stage", &RungeKuttaCalls::stage, release())
      .def("finish", &RungeKuttaCalls::finish, release());
  py::class_<StepControlCalls>(module, "StepControlCalls")
      .def(py::init<const std::vector<Address>&, const std::vector<Address>&, const std::vector<int64_t>&, Address,
                    Address, Address, Address, Address, Address, Address, const std::vector<double>&, double, double,
                    double, double, double, double, double, int64_t, int64_t, int, int, int>())
      .def("run", &StepControlCalls::run, release());
  module.def(
      "graph_dot",
      [](Address a, Address b, Address ptr, Address result, int64_t segments, int64_t rows, int64_t features,
         int64_t count_a, int64_t count_b, int dtype, int index, int device, int threads, Address stream) {
        gg_graph_dot_params p{in(a),    in(b),   in(ptr), out(result), segments, rows,
                              features, count_a, count_b, dtype,       index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_graph_dot(&p, &where));
      },
      release());
  module.def(
      "graph_combine",
      [](Address weight, Address b, Address ptr, Address result, int64_t segments, int64_t rows, int64_t features,
         int64_t count, int64_t terms, int dtype, int index, int device, int threads, Address stream) {
        gg_graph_combine_params p{in(weight), in(b), in(ptr), out(result), segments, rows,
                                  features,   count, terms,   dtype,       index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_graph_combine(&p, &where));
      },
      release());
}
