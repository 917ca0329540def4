#include "cpu_kernels.h"

#include "status.h"

#include <stdlib.h>
#include <string.h>

namespace gg {

#if defined(__x86_64__)
namespace x86_64_v2 {
extern const CpuKernels table;
}
namespace x86_64_v3 {
extern const CpuKernels table;
}
namespace x86_64_v4 {
extern const CpuKernels table;
}

static bool runs_v4() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
}
static bool runs_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
static bool runs_v2() { return __builtin_cpu_supports("sse4.2"); }

struct Candidate {
  const CpuKernels* table;
  bool (*runs)();
};
static const Candidate candidates[] = {
    {&x86_64_v4::table, runs_v4}, {&x86_64_v3::table, runs_v3}, {&x86_64_v2::table, runs_v2}};
#else
namespace baseline {
extern const CpuKernels table;
}
struct Candidate {
  const CpuKernels* table;
  bool (*runs)();
};
static const Candidate candidates[] = {{&baseline::table, [] { return true; }}};
#endif

static const CpuKernels* choose() {
  const char* wanted = getenv("GRAPHGEN_ISA");
  for (const Candidate& candidate : candidates) {
    if (wanted && *wanted && strcmp(wanted, candidate.table->name) != 0) continue;
    if (candidate.runs()) return candidate.table;
  }
  return nullptr;
}

const CpuKernels* cpu_kernels() {
  static const CpuKernels* chosen = choose();
  if (!chosen) {
    const char* wanted = getenv("GRAPHGEN_ISA");
    fail(GG_INVALID_ARGUMENT,
         "GRAPHGEN_ISA=%s: this processor or build has no such instruction set; unset it or use one of:%s%s",
         wanted ? wanted : "",
#if defined(__x86_64__)
         " x86_64_v2 x86_64_v3", " x86_64_v4"
#else
         " baseline", ""
#endif
    );
  }
  return chosen;
}

}  // namespace gg

extern "C" const char* gg_instruction_set(void) {
  const gg::CpuKernels* kernels = gg::cpu_kernels();
  return kernels ? kernels->name : nullptr;
}
