// The table of CPU kernels; every instruction set fills one, and the engine picks one at run time.
#pragma once

#include "../graphgen.h"

namespace gg {

struct CpuKernels {
  const char* name;
  void (*segment_reduce)(const gg_segment_reduce_params&, int threads);
  void (*segment_broadcast)(const gg_segment_broadcast_params&, int threads);
  void (*neighbor_reduce)(const gg_neighbor_reduce_params&, int threads);
  void (*edge_dot)(const gg_edge_dot_params&, int threads);
  void (*message_sum)(const gg_message_sum_params&, int threads);
  void (*linear)(const gg_linear_params&, int threads);
  void (*activate)(const gg_activate_params&, int threads);
  void (*softmax)(const gg_softmax_params&, int threads);
  void (*noise)(const gg_noise_params&, int threads);
};

// The best table this processor runs, or the one GRAPHGEN_ISA names. Null, with a message set, if that
// variable names a set unknown to this build or to this processor.
const CpuKernels* cpu_kernels();

}  // namespace gg
