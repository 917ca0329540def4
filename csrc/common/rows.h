// A kernel whose rows are independent, run on the pool.
#pragma once

#include "thread_pool.h"

namespace gg {

// About 50 us of work at the rates of the slowest kernel here: below that, waking a thread costs more than it
// saves.
constexpr int64_t kWorkPerRange = 64 * 1024;

template <class Body>
static inline void for_rows(int64_t rows, int64_t work_per_row, int threads, Body& body) {
  int64_t grain = 1 + kWorkPerRange / (work_per_row > 0 ? work_per_row : 1);
  parallel_for(
      rows, grain, threads,
      [](void* context, int64_t first, int64_t last) { (*static_cast<Body*>(context))(first, last); }, &body);
}

}  // namespace gg
