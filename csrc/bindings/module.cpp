// pybind11: addresses and integers in, status out; no logic.
#include "../graphgen.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

using Address = uintptr_t;  // 0 is a null pointer

static const void* in(Address address) { return reinterpret_cast<const void*>(address); }
static void* out(Address address) { return reinterpret_cast<void*>(address); }
static gg_place place(int device, int threads, Address stream) { return {device, threads, out(stream)}; }

PYBIND11_MODULE(_C, module) {
  using release = py::call_guard<py::gil_scoped_release>;

  module.def("message", [] { return gg_message(); });
  module.def("instruction_set", [] { return gg_instruction_set(); });
  module.def("built_with_cuda", [] { return gg_built_with_cuda() != 0; });
  module.def("lend_openmp", [](Address gomp_parallel) { gg_lend_openmp(out(gomp_parallel)); });

  module.def(
      "segment_reduce",
      [](Address src, Address ptr, Address result, int64_t segments, int64_t features, int dtype, int index, int reduce,
         int64_t rows, int device, int threads, Address stream) {
        gg_segment_reduce_params p{in(src), in(ptr), out(result), segments, features, dtype, index, reduce, rows};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_segment_reduce(&p, &where));
      },
      release());
  module.def(
      "segment_broadcast",
      [](Address src, Address ptr, Address result, int64_t segments, int64_t features, int dtype, int index, int reduce,
         int64_t rows, int device, int threads, Address stream) {
        gg_segment_broadcast_params p{in(src), in(ptr), out(result), segments, features, dtype, index, reduce, rows};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_segment_broadcast(&p, &where));
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
      "message_sum",
      [](Address t0, Address s0, Address b0, Address t1, Address s1, Address b1, Address t2, Address s2, Address b2,
         Address t3, Address s3, Address b3, Address rowptr, Address neighbor, Address type, Address result,
         Address partial, int64_t rows, int64_t features, int64_t types, int order, int activation, int by_type,
         int dtype, int index, int device, int threads, Address stream) {
        gg_message_sum_params p{{in(t0), in(t1), in(t2), in(t3)},
                                {in(s0), in(s1), in(s2), in(s3)},
                                {in(b0), in(b1), in(b2), in(b3)},
                                in(rowptr),
                                in(neighbor),
                                in(type),
                                out(result),
                                out(partial),
                                rows,
                                features,
                                types,
                                order,
                                activation,
                                by_type,
                                dtype,
                                index};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_message_sum(&p, &where));
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
      "activate",
      [](Address x, Address result, int64_t count, int order, int activation, int dtype, int device, int threads,
         Address stream) {
        gg_activate_params p{in(x), out(result), count, order, activation, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_activate(&p, &where));
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
      [](Address ptr, Address graph_id, Address result, int64_t graphs, int64_t features, uint64_t seed,
         uint32_t stream_number, uint32_t step, int distribution, int dtype, int device, int threads, Address stream) {
        gg_noise_params p{in(ptr), in(graph_id),  out(result), graphs,       features,
                          seed,    stream_number, step,        distribution, dtype};
        gg_place where = place(device, threads, stream);
        return static_cast<int>(gg_noise(&p, &where));
      },
      release());
}
