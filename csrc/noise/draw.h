// The noise contract by vectors, for the CPU kernels. A lane is a block of four elements, and the lanes of a vector
// span the rows of a graph and the graphs of a batch: small graphs fill it as well as large ones.
#pragma once

#include "../common/simd.h"
#include "../graphgen.h"
#include "pairs.h"
#include "philox.h"

namespace gg {
namespace GG_ISA {

typedef uint64_t uint64v __attribute__((vector_size(GG_VECTOR_BYTES)));

// A vector of 32-bit words, those of even and of odd lanes apart and each in the low half of a 64-bit lane, where a
// 32 x 32 bit product wants them. What the high halves hold means nothing.
struct SplitWords {
  uint64v even, odd;

  static GG_MEMBER SplitWords of(uint32v words) {
    const uint64v both = bit_cast<uint64v>(words);
    return {both, both >> 32};
  }
  GG_MEMBER uint32v joined() const {
#if GG_VECTOR_BYTES == 64 && defined(__x86_64__)
    return bit_cast<uint32v>(
        _mm512_mask_shuffle_epi32(bit_cast<__m512i>(even), 0xaaaa, bit_cast<__m512i>(odd), _MM_PERM_CCAA));
#else
    return bit_cast<uint32v>((even & 0xffffffffull) | odd << 32);
#endif
  }
};
GG_HD SplitWords operator^(SplitWords a, SplitWords b) { return {a.even ^ b.even, a.odd ^ b.odd}; }
GG_HD SplitWords operator^(SplitWords a, uint32_t key) { return {a.even ^ uint64_t{key}, a.odd ^ uint64_t{key}}; }

GG_HD uint64v low_product(uint64v a, uint32_t factor) {
#if !defined(__x86_64__)
  return (a & 0xffffffffull) * uint64_t{factor};
#elif GG_VECTOR_BYTES == 64
  return bit_cast<uint64v>(_mm512_mul_epu32(bit_cast<__m512i>(a), _mm512_set1_epi64(factor)));
#elif GG_VECTOR_BYTES == 32
  return bit_cast<uint64v>(_mm256_mul_epu32(bit_cast<__m256i>(a), _mm256_set1_epi64x(factor)));
#else
  return bit_cast<uint64v>(_mm_mul_epu32(bit_cast<__m128i>(a), _mm_set1_epi64x(factor)));
#endif
}

}  // namespace GG_ISA

template <>
struct Lanes<GG_ISA::SplitWords> {
  using Real = floatv;
  using Words = GG_ISA::SplitWords;
  static GG_MEMBER void multiply_wide(Words a, uint32_t factor, Words& high, Words& low) {
    low = {GG_ISA::low_product(a.even, factor), GG_ISA::low_product(a.odd, factor)};
    high = {low.even >> 32, low.odd >> 32};
  }
};
template <>
struct Lanes<uint32v> {
  using Real = floatv;
  static GG_MEMBER floatv from_signed(uint32v bits) { return __builtin_convertvector(bit_cast<int32v>(bits), floatv); }
  static GG_MEMBER floatv from_unsigned(uint32v words) {
#if defined(__SSE2__) && !defined(__AVX512F__)
    // Both halves convert exactly, so the sum is rounded once.
    return from_signed(words >> 16) * 65536.0f + from_signed(words & 0xffffu);
#else
    return __builtin_convertvector(words, floatv);
#endif
  }
  static GG_MEMBER uint32v shift_signed(uint32v bits, int places) {
    return bit_cast<uint32v>(bit_cast<int32v>(bits) >> places);
  }
  static GG_MEMBER floatv square_root(floatv x) {
    for (int lane = 0; lane < GG_VECTOR_BYTES / 4; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
  }
};

namespace GG_ISA {

constexpr int kLanes = GG_VECTOR_BYTES / 4;
constexpr int kRun = 1024;    // most elements of a graph that are handed over at once
constexpr int kBlocks = 512;  // drawn at once

// lanes of a and b by turns, the lower or the upper half of them
template <bool upper>
GG_HD floatv interleave(floatv a, floatv b) {
  int32v order{};
  for (int lane = 0; lane < kLanes; ++lane) order[lane] = (lane & 1) * kLanes + lane / 2 + (upper ? kLanes / 2 : 0);
  return __builtin_shuffle(a, b, order);
}

// The counters of blocks that wait to be drawn, in rows that leave room for a last vector.
struct Counters {
  uint32_t block[kBlocks + kLanes], graph[kBlocks + kLanes], last[kBlocks + kLanes];

  void add(int at, int64_t first_block, int count, uint32_t stream, int64_t graph_id) {
    uint32v number{};
    for (int lane = 0; lane < kLanes; ++lane) number[lane] = lane;
    number += static_cast<uint32_t>(first_block);
    const uint32v low = uint32v{} + static_cast<uint32_t>(graph_id);
    const uint32v high = uint32v{} + last_counter_word(stream, graph_id);
    for (int k = 0; k < count; k += kLanes) {
      __builtin_memcpy(block + at + k, &number, sizeof number);
      __builtin_memcpy(graph + at + k, &low, sizeof low);
      __builtin_memcpy(last + at + k, &high, sizeof high);
      number += static_cast<uint32_t>(kLanes);
    }
  }
};

template <int distribution>
static void draw(const Counters& counters, int count, uint64_t seed, uint32_t step, float* values) {
  for (int k = 0; k < count; k += kLanes) {
    uint32v word[4];
    __builtin_memcpy(&word[0], counters.block + k, sizeof word[0]);
    word[1] = uint32v{} + step;
    __builtin_memcpy(&word[2], counters.graph + k, sizeof word[2]);
    __builtin_memcpy(&word[3], counters.last + k, sizeof word[3]);
    SplitWords split[4];
    for (int w = 0; w < 4; ++w) split[w] = SplitWords::of(word[w]);
    philox(split, seed);
    for (int w = 0; w < 4; ++w) word[w] = split[w].joined();
    floatv element[4];
    if constexpr (distribution == GG_NORMAL) {
      box_muller(word[0], word[1], element[0], element[1]);
      box_muller(word[2], word[3], element[2], element[3]);
    } else {
      for (int w = 0; w < 4; ++w) element[w] = uniform(word[w]);
    }
    const floatv even[2] = {interleave<false>(element[0], element[2]), interleave<true>(element[0], element[2])};
    const floatv odd[2] = {interleave<false>(element[1], element[3]), interleave<true>(element[1], element[3])};
    for (int half = 0; half < 2; ++half) {
      store(values + 4 * k + 2 * half * kLanes, interleave<false>(even[half], odd[half]));
      store(values + 4 * k + (2 * half + 1) * kLanes, interleave<true>(even[half], odd[half]));
    }
  }
}

// The graphs of a batch and the noise that belongs to them.
struct Batch {
  const int64_t *ptr, *graph_id;
  int64_t features;
  uint64_t seed;
  uint32_t stream, step;
  bool symmetric;

  Batch(const gg_graph_noise& noise, int64_t features)
      : ptr(static_cast<const int64_t*>(noise.ptr)),
        graph_id(static_cast<const int64_t*>(noise.graph_id)),
        features(features),
        seed(noise.seed),
        stream(noise.stream),
        step(noise.step + (noise.step_at ? static_cast<uint32_t>(*noise.step_at) : 0)),
        symmetric(noise.symmetric) {}

  int64_t id(int64_t graph) const { return graph_id ? graph_id[graph] : graph; }
  int64_t start(int64_t graph) const { return ptr[graph] * features; }
  int64_t rows(int64_t graph) const { return ptr[graph + 1] - ptr[graph]; }
  int64_t numbers(int64_t graph) const { return (symmetric ? pairs_of(side_of(rows(graph))) : rows(graph)) * features; }
};

// Runs of elements [first, first + count) of graphs whose blocks are drawn together; first is a multiple of kRun, count
// at most kRun.
struct Load {
  struct Run {
    int64_t graph, first;
    int count, at;  // at: its first block
  };
  Counters counters;
  Run runs[kBlocks];
  int blocks = 0, waiting = 0;

  // body(graph, first, count, 4 * at) for each run
  template <class Body>
  GG_MEMBER void each(Body&& body) const {
    for (int k = 0; k < waiting; ++k) body(runs[k].graph, runs[k].first, runs[k].count, 4 * runs[k].at);
  }
};

// body(load) for all runs of graphs [begin, end); a load holds parts of one graph only if `alone`.
template <class Body>
GG_HD void for_each_load(const Batch& batch, int64_t begin, int64_t end, bool alone, Body&& body) {
  Load load;
  auto hand_over = [&] {
    body(load);
    load.blocks = load.waiting = 0;
  };
  for (int64_t graph = begin; graph < end; ++graph) {
    const int64_t numbers = batch.numbers(graph);
    if (alone && load.waiting > 0) hand_over();
    for (int64_t first = 0; first < numbers; first += kRun) {
      const int count = static_cast<int>(numbers - first < kRun ? numbers - first : kRun), needed = (count + 3) / 4;
      if (load.blocks + needed > kBlocks) hand_over();
      load.counters.add(load.blocks, first / 4, needed, batch.stream, batch.id(graph));
      load.runs[load.waiting++] = {graph, first, count, load.blocks};
      load.blocks += needed;
    }
  }
  if (load.waiting > 0) hand_over();
}

// body(graph, first, count, noise) for the noise of graphs [begin, end), by such runs; what is readable behind
// noise[count] means nothing.
template <int distribution, class Body>
GG_HD void for_each_run(const Batch& batch, int64_t begin, int64_t end, Body&& body) {
  float values[4 * (kBlocks + kLanes)];
  for_each_load(batch, begin, end, false, [&](const Load& load) {
    draw<distribution>(load.counters, load.blocks, batch.seed, batch.step, values);
    load.each([&](int64_t graph, int64_t first, int count, int at) { body(graph, first, count, values + at); });
  });
}

}  // namespace GG_ISA
}  // namespace gg
