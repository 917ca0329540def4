#include "../common/dispatch.h"
#include "../common/rows.h"
#include "draw.h"

namespace gg::GG_ISA {

void noise(const gg_noise_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const int64_t* ptr = static_cast<const int64_t*>(p.ptr);
    const int64_t* graph_id = static_cast<const int64_t*>(p.graph_id);
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t g = first; g < last; ++g)
        draw(p, graph_id ? graph_id[g] : g, 0, static_cast<S*>(p.out) + ptr[g] * p.features,
             (ptr[g + 1] - ptr[g]) * p.features);
    };
    const int64_t mean_rows = p.graphs > 0 ? ptr[p.graphs] / p.graphs + 1 : 1;
    for_rows(p.graphs, 16 * mean_rows * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
