// The numbers of one graph, a vector of counters at a time. CPU kernels only.
#pragma once

#include "../common/simd.h"
#include "../graphgen.h"
#include "philox.h"

namespace gg {

template <>
struct Lanes<uint32v> {
  using Real = floatv;
  static GG_MEMBER void multiply_wide(uint32v a, uint32_t factor, uint32v& high, uint32v& low) {
#if defined(__x86_64__)
    typedef uint64_t uint64v __attribute__((vector_size(GG_VECTOR_BYTES)));
#if GG_VECTOR_BYTES == 64
    const __m512i f = _mm512_set1_epi32(static_cast<int>(factor)), v = bit_cast<__m512i>(a);
    const uint64v even = bit_cast<uint64v>(_mm512_mul_epu32(v, f));
    const uint64v odd = bit_cast<uint64v>(_mm512_mul_epu32(_mm512_srli_epi64(v, 32), f));
#elif GG_VECTOR_BYTES == 32
    const __m256i f = _mm256_set1_epi32(static_cast<int>(factor)), v = bit_cast<__m256i>(a);
    const uint64v even = bit_cast<uint64v>(_mm256_mul_epu32(v, f));
    const uint64v odd = bit_cast<uint64v>(_mm256_mul_epu32(_mm256_srli_epi64(v, 32), f));
#else
    const __m128i f = _mm_set1_epi32(static_cast<int>(factor)), v = bit_cast<__m128i>(a);
    const uint64v even = bit_cast<uint64v>(_mm_mul_epu32(v, f));
    const uint64v odd = bit_cast<uint64v>(_mm_mul_epu32(_mm_srli_epi64(v, 32), f));
#endif
    low = bit_cast<uint32v>((even & 0xffffffffull) | (odd << 32));
    high = bit_cast<uint32v>((even >> 32) | (odd & 0xffffffff00000000ull));
#else
    for (int lane = 0; lane < GG_VECTOR_BYTES / 4; ++lane) {
      const uint64_t product = static_cast<uint64_t>(a[lane]) * factor;
      high[lane] = static_cast<uint32_t>(product >> 32);
      low[lane] = static_cast<uint32_t>(product);
    }
#endif
  }
  static GG_MEMBER floatv from_signed(uint32v bits) { return __builtin_convertvector(bit_cast<int32v>(bits), floatv); }
  static GG_MEMBER floatv square_root(floatv x) {
    for (int lane = 0; lane < GG_VECTOR_BYTES / 4; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
  }
};

// lanes of a and b by turns, the lower or the upper half of them
template <bool upper, class Vector>
GG_HD Vector interleave(Vector a, Vector b) {
  constexpr int lanes = GG_VECTOR_BYTES / 4;
  int32v order{};
  for (int lane = 0; lane < lanes; ++lane) order[lane] = (lane & 1) * lanes + lane / 2 + (upper ? lanes / 2 : 0);
  return __builtin_shuffle(a, b, order);
}

namespace GG_ISA {

constexpr int kLanes = GG_VECTOR_BYTES / 4;
constexpr int64_t kDrawn = 128;  // elements that one block of signs holds; a draw starts at a multiple

// One block a lane: counters first_block + 0, 1, 2, ...
static inline void draw_words(const gg_noise_params& p, int64_t graph_id, int64_t first_block, uint32v (&words)[4]) {
  for (int lane = 0; lane < kLanes; ++lane) words[0][lane] = static_cast<uint32_t>(first_block) + lane;
  words[1] = uint32v{} + p.step;
  words[2] = uint32v{} + static_cast<uint32_t>(graph_id);
  words[3] = uint32v{} + last_counter_word(p.stream, graph_id);
  philox(words, p.seed);
}

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

template <class S>
static inline void draw_reals(const gg_noise_params& p, int64_t graph_id, int64_t start, S* out, int64_t count) {
  for (int64_t at = 0; at < count; at += 4 * kLanes) {
    uint32v words[4] = {};
    draw_words(p, graph_id, (start + at) / 4, words);
    floatv element[4];
    if (p.distribution == GG_NORMAL) {
      box_muller(words[0], words[1], element[0], element[1]);
      box_muller(words[2], words[3], element[2], element[3]);
    } else {
      for (int k = 0; k < 4; ++k) element[k] = uniform(words[k]);
    }
    floatv even[2] = {interleave<false>(element[0], element[2]), interleave<true>(element[0], element[2])};
    floatv odd[2] = {interleave<false>(element[1], element[3]), interleave<true>(element[1], element[3])};
    float values[4 * kLanes];
    for (int half = 0; half < 2; ++half) {
      store(values + (2 * half) * kLanes, interleave<false>(even[half], odd[half]));
      store(values + (2 * half + 1) * kLanes, interleave<true>(even[half], odd[half]));
    }
    write_some(out + at, values, count - at < 4 * kLanes ? count - at : 4 * kLanes);
  }
}

template <class S>
static inline void draw_signs(const gg_noise_params& p, int64_t graph_id, int64_t start, S* out, int64_t count) {
  for (int64_t at = 0; at < count; at += kDrawn) {
    uint32_t words[4] = {static_cast<uint32_t>((start + at) / kDrawn), p.step, static_cast<uint32_t>(graph_id),
                         last_counter_word(p.stream, graph_id)};
    philox(words, p.seed);
    float values[kDrawn];
    for (int first = 0; first < kDrawn; first += kLanes) {
      uint32v place = {};
      for (int lane = 0; lane < kLanes; ++lane) place[lane] = static_cast<uint32_t>(first % 32 + lane);
      const uint32v clear = ~((uint32v{} + words[first / 32]) >> place) & 1u;
      store(values + first, bit_cast<floatv>(0x3f800000u | clear << 31));  // 1 with the sign bit of a clear bit
    }
    write_some(out + at, values, count - at < kDrawn ? count - at : kDrawn);
  }
}

// out = elements start, ..., start + count - 1 of a graph.
template <class S>
static inline void draw(const gg_noise_params& p, int64_t graph_id, int64_t start, S* out, int64_t count) {
  if (p.distribution == GG_RADEMACHER) {
    draw_signs(p, graph_id, start, out, count);
  } else {
    draw_reals(p, graph_id, start, out, count);
  }
}

}  // namespace GG_ISA
}  // namespace gg
