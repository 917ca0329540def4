#include "../common/cuda_kernels.h"
#include "../common/pack.cuh"
#include "quads.cuh"

namespace gg::cuda {
namespace {

static __device__ __forceinline__ void draw(const Quads& quads, int distribution, int64_t graph, int64_t quad,
                                            float (&element)[4]) {
  if (distribution == GG_NORMAL) return quads.normals(graph, quad, element);
  uint32_t words[4];
  quads.words(graph, distribution == GG_RADEMACHER ? quad / 32 : quad, words);
  if (distribution == GG_UNIFORM) {
    for (int k = 0; k < 4; ++k) element[k] = uniform(words[k]);
  } else {
    const int place = static_cast<int>(quad % 32);  // of the block's 32 quads; 8 to a word
    const uint32_t low = place & 8 ? words[1] : words[0], high = place & 8 ? words[3] : words[2];
    const uint32_t bits = (place & 16 ? high : low) >> (place % 8 * 4);
    for (int k = 0; k < 4; ++k) element[k] = bits >> k & 1 ? 1.0f : -1.0f;
  }
}

template <class S>
struct Noise {
  Quads quads;
  S* out;
  int distribution;

  __device__ __forceinline__ void operator()(int64_t item) const {
    __shared__ WarpRun runs[kThreads / kWarp];
    const Quads::Quad quad = quads.at(item);
    float element[4];
    draw(quads, distribution, quad.graph, quad.number, element);
    runs[threadIdx.x / kWarp].each(quads, quad, element,
                                   [&](int64_t at, int64_t, float value) { store_scalar(out + at, value); });
  }
};

// A quad of unordered pairs goes to both orders of each. There are fewer of these quads than numbers for them.
template <class S>
struct PairNoise {
  Quads quads;
  S* out;
  int distribution;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const Quads::Quad quad = quads.at(item);
    const int64_t n = side_of(quads.count(quad.graph) / quads.features), numbers = pairs_of(n) * quads.features;
    if (quad.number * 4 >= numbers) return;
    float element[4];
    draw(quads, distribution, quad.graph, quad.number, element);
    S* to = out + quads.start(quad.graph);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t number = quad.number * 4 + k, feature = number % quads.features;
      if (number >= numbers) break;
      const Pair pair = Pair::at(number / quads.features);
      store_scalar(to + pair.row(n) * quads.features + feature, element[k]);
      store_scalar(to + pair.mirrored_row(n) * quads.features + feature, element[k]);
    }
  }
};

}  // namespace

gg_status noise(const gg_noise_params& p, void* stream) {
  if (p.rows == 0 || p.features == 0) return GG_OK;
  const Quads quads{p.noise, p.graphs, p.rows, p.features};
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    S* out = static_cast<S*>(p.out);
    if (p.noise.symmetric)
      return launch_items("noise", quads.items(), stream, PairNoise<S>{quads, out, p.distribution});
    return launch_items("noise", quads.items(), stream, Noise<S>{quads, out, p.distribution});
  });
}

}  // namespace gg::cuda
