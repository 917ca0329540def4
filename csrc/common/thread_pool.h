// A small fork-safe pool. OpenMP is left to torch, which brings its own runtime.
#pragma once

#include <stdint.h>

namespace gg {

using Range = void (*)(void* context, int64_t first, int64_t last);

// Calls work on disjoint ranges that cover [0, count), on at most `threads` threads, each range at least
// `grain` long; inline when one range is all there is.
void parallel_for(int64_t count, int64_t grain, int threads, Range work, void* context);

}  // namespace gg
