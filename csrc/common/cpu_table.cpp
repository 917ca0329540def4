// Compiled once per instruction set: one table of that set's kernels.
#include "cpu_kernels.h"
#include "simd.h"

#define GG_STRING_(x) #x
#define GG_STRING(x) GG_STRING_(x)

namespace gg::GG_ISA {

#define GG_DECLARE(operation) void operation(const gg_##operation##_params&, int);
GG_OPERATIONS(GG_DECLARE)

#define GG_NAME(operation) , operation
extern const CpuKernels table;
const CpuKernels table = {GG_STRING(GG_ISA) GG_OPERATIONS(GG_NAME)};

}  // namespace gg::GG_ISA
