#include "../common/dispatch.h"
#include "../common/simd.h"
#include "step_control.h"

namespace gg::GG_ISA {

// On one thread: a graph costs less than handing it to another would.
void step_control(const gg_step_control_params& p, int) {
  with_dtype(p.dtype, [&](auto dtype) {
    int64_t on_way = 0, accepted = 0, failed = 0;
    for (int64_t graph = 0; graph < p.graphs; ++graph) {
      const Verdict verdict = control_graph<typename decltype(dtype)::type>(p, graph);
      on_way += verdict.on_way;
      accepted += verdict.accepted;
      failed += verdict.failed;
    }
    p.counts[0] = on_way;
    p.counts[1] = accepted;
    p.counts[2] = failed;
  });
}

}  // namespace gg::GG_ISA
