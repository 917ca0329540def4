// The CUDA launchers, one per operation of the C interface; each enqueues on the stream and returns.
#pragma once

#include "../graphgen.h"

namespace gg::cuda {

gg_status segment_reduce(const gg_segment_reduce_params&, void* stream);
gg_status segment_broadcast(const gg_segment_broadcast_params&, void* stream);
gg_status neighbor_reduce(const gg_neighbor_reduce_params&, void* stream);
gg_status edge_dot(const gg_edge_dot_params&, void* stream);
gg_status message_sum(const gg_message_sum_params&, void* stream);
gg_status linear(const gg_linear_params&, void* stream);
gg_status activate(const gg_activate_params&, void* stream);
gg_status softmax(const gg_softmax_params&, void* stream);
gg_status noise(const gg_noise_params&, void* stream);

}  // namespace gg::cuda
