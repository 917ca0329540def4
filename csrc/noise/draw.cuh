// The numbers of one graph, four at a time.
#pragma once

#include "../graphgen.h"
#include "philox.h"

namespace gg::cuda {

// Elements 4 quad, ..., 4 quad + 3 of a graph.
static __device__ __forceinline__ void draw(const gg_noise_params& p, int64_t graph, int64_t quad,
                                            float (&element)[4]) {
  const int64_t id = p.graph_id ? static_cast<const int64_t*>(p.graph_id)[graph] : graph;
  const int64_t block = p.distribution == GG_RADEMACHER ? quad / 32 : quad;
  uint32_t words[4] = {static_cast<uint32_t>(block), p.step, static_cast<uint32_t>(id),
                       last_counter_word(p.stream, id)};
  philox(words, p.seed);
  if (p.distribution == GG_NORMAL) {
    box_muller(words[0], words[1], element[0], element[1]);
    box_muller(words[2], words[3], element[2], element[3]);
  } else if (p.distribution == GG_UNIFORM) {
    for (int k = 0; k < 4; ++k) element[k] = uniform(words[k]);
  } else {
    const int place = static_cast<int>(quad % 32);  // of the block's 32 quads; 8 to a word
    const uint32_t low = place & 8 ? words[1] : words[0], high = place & 8 ? words[3] : words[2];
    const uint32_t bits = (place & 16 ? high : low) >> (place % 8 * 4);
    for (int k = 0; k < 4; ++k) element[k] = bits >> k & 1 ? 1.0f : -1.0f;
  }
}

}  // namespace gg::cuda
