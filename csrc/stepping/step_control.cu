#include "../common/cuda_kernels.h"
#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "step_control.h"

namespace gg::cuda {
namespace {

template <class S>
struct StepControl {
  gg_step_control_params p;

  __device__ __forceinline__ void operator()(int64_t graph) const {
    const Verdict verdict = control_graph<S>(p, graph);
    auto* counts = reinterpret_cast<unsigned long long*>(p.counts);
    if (verdict.on_way) atomicAdd(counts, 1ull);
    if (verdict.accepted) atomicAdd(counts + 1, 1ull);
    if (verdict.failed) atomicAdd(counts + 2, 1ull);
  }
};

}  // namespace

gg_status step_control(const gg_step_control_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    return launch_items("step_control", p.graphs, stream, StepControl<typename decltype(dtype)::type>{p});
  });
}

}  // namespace gg::cuda
