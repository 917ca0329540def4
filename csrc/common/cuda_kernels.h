// The CUDA launchers, one per operation of the C interface; each enqueues on the stream and returns.
#pragma once

#include "../graphgen.h"
#include "operations.h"

namespace gg::cuda {

#define GG_DECLARE(operation) gg_status operation(const gg_##operation##_params&, void* stream);
GG_OPERATIONS(GG_DECLARE)
#undef GG_DECLARE

}  // namespace gg::cuda
