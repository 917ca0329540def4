#include "../common/dispatch.h"
#include "../common/rows.h"
#include "draw.h"

namespace gg::GG_ISA {

template <class S>
static inline void write_some(S* out, const float* values, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    if constexpr (sizeof(S) == 2) {
      out[k] = narrow(values[k]);
    } else {
      out[k] = values[k];
    }
  }
}

// The same to both orders of every pair of a graph with n nodes.
template <class S>
static void write_pairs(S* out, const float* values, int64_t first, int64_t count, int64_t n, int64_t features) {
  for (int64_t k = 0; k < count; ++k) {
    const Pair pair = Pair::at((first + k) / features);
    const int64_t feature = (first + k) % features;
    write_some(out + pair.row(n) * features + feature, values + k, 1);
    write_some(out + pair.mirrored_row(n) * features + feature, values + k, 1);
  }
}

template <class S>
static void write_run(const Batch& batch, S* out, int64_t graph, int64_t first, int64_t count, const float* values) {
  S* to = out + batch.start(graph);
  if (batch.symmetric) {
    write_pairs(to, values, first, count, side_of(batch.rows(graph)), batch.features);
  } else {
    write_some(to + first, values, count);
  }
}

template <class S>
static void fill_signs(const Batch& batch, int64_t graph, S* out) {
  const int64_t id = batch.id(graph), count = batch.numbers(graph);
  for (int64_t at = 0; at < count; at += 128) {
    uint32_t words[4] = {static_cast<uint32_t>(at / 128), batch.step, static_cast<uint32_t>(id),
                         last_counter_word(batch.stream, id)};
    philox(words, batch.seed);
    float values[128];
    for (int first = 0; first < 128; first += kLanes) {
      uint32v place = {};
      for (int lane = 0; lane < kLanes; ++lane) place[lane] = static_cast<uint32_t>(first % 32 + lane);
      const uint32v clear = ~((uint32v{} + words[first / 32]) >> place) & 1u;
      store(values + first, bit_cast<floatv>(0x3f800000u | clear << 31));  // 1 with the sign bit of a clear bit
    }
    write_run(batch, out, graph, at, count - at < 128 ? count - at : 128, values);
  }
}

template <class S>
static void fill(const gg_noise_params& p, const Batch& batch, int64_t begin, int64_t end) {
  S* out = static_cast<S*>(p.out);
  auto write = [&](int64_t graph, int64_t first, int64_t count, const float* values) {
    write_run(batch, out, graph, first, count, values);
  };
  if (p.distribution == GG_NORMAL) {
    for_each_run<GG_NORMAL>(batch, begin, end, write);
  } else if (p.distribution == GG_UNIFORM) {
    for_each_run<GG_UNIFORM>(batch, begin, end, write);
  } else {
    for (int64_t graph = begin; graph < end; ++graph) fill_signs(batch, graph, out);
  }
}

void noise(const gg_noise_params& p, int threads) {
  const Batch batch(p.noise, p.features);
  with_dtype(p.dtype, [&](auto dtype) {
    auto body = [&](int64_t begin, int64_t end) { fill<typename decltype(dtype)::type>(p, batch, begin, end); };
    const int64_t mean_elements = p.graphs > 0 ? p.rows * p.features / p.graphs + 1 : 1;
    for_rows(p.graphs, 16 * mean_elements, threads, body);
  });
}

}  // namespace gg::GG_ISA
