// Compiled once per instruction set: one table of that set's kernels.
#include "cpu_kernels.h"
#include "simd.h"

#define GG_STRING_(x) #x
#define GG_STRING(x) GG_STRING_(x)

namespace gg::GG_ISA {

void segment_reduce(const gg_segment_reduce_params&, int);
void segment_broadcast(const gg_segment_broadcast_params&, int);
void neighbor_reduce(const gg_neighbor_reduce_params&, int);
void edge_dot(const gg_edge_dot_params&, int);
void message_sum(const gg_message_sum_params&, int);
void linear(const gg_linear_params&, int);
void activate(const gg_activate_params&, int);
void softmax(const gg_softmax_params&, int);
void noise(const gg_noise_params&, int);

extern const CpuKernels table;
const CpuKernels table = {GG_STRING(GG_ISA), segment_reduce, segment_broadcast, neighbor_reduce, edge_dot,
                          message_sum,       linear,         activate,          softmax,         noise};

}  // namespace gg::GG_ISA
