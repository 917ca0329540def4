// The table of CPU kernels; every instruction set fills one, and the engine picks one at run time.
#pragma once

#include "../graphgen.h"
#include "operations.h"

namespace gg {

struct CpuKernels {
  const char* name;
#define GG_MEMBER_OF_TABLE(operation) void (*operation)(const gg_##operation##_params&, int threads);
  GG_OPERATIONS(GG_MEMBER_OF_TABLE)
#undef GG_MEMBER_OF_TABLE
};

// The best table this processor runs, or the one GRAPHGEN_ISA names. Null, with a message set, if that
// variable names a set unknown to this build or to this processor.
const CpuKernels* cpu_kernels();

}  // namespace gg
