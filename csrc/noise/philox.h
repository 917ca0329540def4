// The noise contract, version 1. Every random number is a pure function of where it is used:
//
//   Philox4x32-10 (Salmon et al., SC 2011), key = seed (low word, high word),
//   counter = (block, step, graph id bits 0-31, stream | graph id bits 32-47 << 16)
//
// Element e of a graph (its row-major place in the graph's [nodes, features] block, or its number among unordered
// pairs, see pairs.h) is
//   uniform     word e % 4 of block e / 4:  (word >> 8) * 2^-24, in [0, 1)
//   normal      words (0, 1) of block e / 4 give elements 0 and 1 of the block by Box-Muller, words (2, 3)
//   elements
//               2 and 3; defined in float32 by the operations below, without contraction, so the bits agree
//               everywhere
//   rademacher  bit e % 32 of word (e / 32) % 4 of block e / 128: +1 if set, else -1
// Other dtypes hold the same value, converted. Brownian motions are made of these, see brownian.h. Changing any of this
// is a new version of the contract.
#pragma once

#include "../common/math.h"

#include <math.h>

namespace gg {

// What differs between one counter (uint32_t) and a vector of them (specialised by the CPU kernel).
template <class Words>
struct Lanes;
template <>
struct Lanes<uint32_t> {
  using Real = float;
  // Both halves of a 32 x 32 bit product.
  static GG_MEMBER void multiply_wide(uint32_t a, uint32_t factor, uint32_t& high, uint32_t& low) {
    const uint64_t product = static_cast<uint64_t>(a) * factor;
    high = static_cast<uint32_t>(product >> 32);
    low = static_cast<uint32_t>(product);
  }
  // The bits of an int32 to float, and a uint32, rounded to nearest.
  static GG_MEMBER float from_signed(uint32_t bits) { return static_cast<float>(static_cast<int32_t>(bits)); }
  static GG_MEMBER float from_unsigned(uint32_t word) { return static_cast<float>(word); }
  // The bits of an int32 over 2^places, rounded down.
  static GG_MEMBER uint32_t shift_signed(uint32_t bits, int places) {
    return static_cast<uint32_t>(static_cast<int32_t>(bits) >> places);
  }
  static GG_MEMBER float square_root(float x) { return sqrtf(x); }
};

template <class Words>
GG_HD void philox(Words (&counter)[4], uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    Lanes<Words>::multiply_wide(counter[0], 0xD2511F53u, high0, low0);
    Lanes<Words>::multiply_wide(counter[2], 0xCD9E8D57u, high1, low1);
    const Words next0 = high1 ^ counter[1] ^ key0, next2 = high0 ^ counter[3] ^ key1;
    counter[0] = next0;
    counter[1] = low1;
    counter[2] = next2;
    counter[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

GG_HD uint32_t last_counter_word(uint32_t stream, int64_t graph_id) {
  return stream | static_cast<uint32_t>(static_cast<uint64_t>(graph_id) >> 32) << 16;
}

template <class Words, class Real = typename Lanes<Words>::Real>
GG_HD Real uniform(Words word) {
  return Lanes<Words>::from_signed(word >> 8) * 5.9604644775390625e-8f;
}

// log of a normal float in (0, 1]; polynomial of the Cephes library (Moshier).
template <class Words, class Real = typename Lanes<Words>::Real>
GG_HD Real log_unit(Real u) {
  const Words bits = bit_cast<Words>(u);
  // Mantissa in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) moves the exponent's turn there.
  const Words shifted = bits - 0x3f3504f3u;
  const Real e = Lanes<Words>::from_signed(Lanes<Words>::shift_signed(shifted, 23));
  const Real x = bit_cast<Real>((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const Real z = x * x;
  const double c[] = {7.0376836292e-2,  -1.1514610310e-1, 1.1676998740e-1,  -1.2420140846e-1, 1.4249322787e-1,
                      -1.6668057665e-1, 2.0000714765e-1,  -2.4999993993e-1, 3.3333331174e-1};
  Real y = horner(x, c) * x * z;
  y = y + e * -2.12194440e-4f;
  y = y + z * -0.5f;
  return x + y + e * 0.693359375f;
}

template <class Words, class Real = typename Lanes<Words>::Real>
GG_HD void box_muller(Words word0, Words word1, Real& first, Real& second) {
  const Real u = Lanes<Words>::from_unsigned(word0) * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
  const Real radius = Lanes<Words>::square_root(log_unit<Words>(u) * -2.0f);
  // word1 / 2^32 of a turn: the nearest quarter turn, in the two highest bits, and an angle in [-pi/4, pi/4] from it,
  // the other bits with their sign.
  const Words turned = word1 + 0x20000000u;
  const Real angle = Lanes<Words>::from_signed(word1 << 2) * (0.25f * 1.4629180792671596e-9f);
  const Real z = angle * angle;
  const double s[] = {-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1};
  const double c[] = {2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2};
  const Real sine = horner(z, s) * z * angle + angle;
  const Real cosine = horner(z, c) * z * z - z * 0.5f + 1.0f;
  // Quarter turns swap and change signs: cos takes the sine at odd ones and is negative at 1 and 2, sin at 2
  // and 3.
  const auto odd = (turned & 0x40000000u) != 0;
  const Real along = odd ? sine : cosine, across = odd ? cosine : sine;
  first = radius * bit_cast<Real>(bit_cast<Words>(along) ^ ((turned + 0x40000000u) & 0x80000000u));
  second = radius * bit_cast<Real>(bit_cast<Words>(across) ^ (turned & 0x80000000u));
}

}  // namespace gg
