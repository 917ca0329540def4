// Brownian motion as a function of time, a part of the noise contract, version 1.
//
// Time is cut into cells of a given length, the first from 0 on, whose numbers may be negative. A cell has its
// increment W and its space-time Levy area H, the mean distance of the path from its chord: independent normals of
// variances `length` and `length` / 12. Halving an interval, given its (W, H), takes two more normals X, Y:
//   left   W / 2 + (3 H / 2 + sqrt(length) X / 4),   H / 4 - sqrt(length) X / 8 + sqrt(length) Y / (4 sqrt 3)
//   right  W / 2 - (3 H / 2 + sqrt(length) X / 4),   H / 4 - sqrt(length) X / 8 - sqrt(length) Y / (4 sqrt 3)
// `depth` times; within the last interval the path is its mean given (W, H), a parabola (Foster, Lyons and Oberhauser,
// SIAM J. Numer. Anal. 58, 2020). So a point costs 2 depth + 2 normals, those between cells one a cell, and depends on
// nothing that was asked before.
//
// Normals are those of philox.h, with counter step = cell modulo 2^32 and, but for the W of a cell, which has the
// caller's own, a seed from
//   counter = (index bits 0-31, index bits 32-63 | level << 16, cell, kKeyStream | stream << 16),  key = seed:
// words (0, 1) for X, words (2, 3) for Y, of the interval `index` of `level`; level 63 for the cell's H, a Y.
#pragma once

#include "../common/bfloat16.h"
#include "../graphgen.h"
#include "philox.h"

#include <math.h>

namespace gg {

constexpr uint32_t kKeyStream = 17;  // Stream.BROWNIAN_KEY
constexpr int kCellLevel = 63;
constexpr double kMostCells = 2147483647.0;
constexpr double kSnap = 1.0 / 4096;  // of the shortest interval: so near, a time is the boundary itself

struct BrownianKeys {
  uint64_t along, across;  // the seeds of X and Y

  static GG_MEMBER BrownianKeys of(uint64_t seed, uint32_t stream, int64_t cell, int level, uint64_t index) {
    uint32_t words[4] = {static_cast<uint32_t>(index),
                         static_cast<uint32_t>(index >> 32) | static_cast<uint32_t>(level) << 16,
                         static_cast<uint32_t>(cell), kKeyStream | stream << 16};
    philox(words, seed);
    return {words[0] | uint64_t{words[1]} << 32, words[2] | uint64_t{words[3]} << 32};
  }
};

// A time as a cell, the shortest interval in it and what is left, a part of that.
struct BrownianPlace {
  int64_t cell, digits;
  double rest;

  static GG_MEMBER BrownianPlace of(double time, double length, int depth) {
    // The CPU call has refused times beyond; on CUDA they must not become an endless loop.
    const double wanted = time / length, position = wanted > -kMostCells && wanted < kMostCells ? wanted : 0.0;
    const double cell = floor(position);
    const double scaled = (position - cell) * static_cast<double>(int64_t{1} << depth);
    const double nearest = floor(scaled + 0.5), distance = scaled - nearest;
    const bool snaps = distance <= kSnap && distance >= -kSnap;
    const double whole = snaps ? nearest : floor(scaled);
    const BrownianPlace place{static_cast<int64_t>(cell), static_cast<int64_t>(whole), snaps ? 0.0 : scaled - whole};
    return place.digits >> depth ? BrownianPlace{place.cell + 1, 0, 0.0} : place;
  }
  GG_MEMBER bool at_start() const { return digits == 0 && rest == 0.0; }
  // The time since the start of the cell.
  GG_MEMBER double since(double length, int depth) const {
    return length * ((static_cast<double>(digits) + rest) / static_cast<double>(int64_t{1} << depth));
  }
  // Whether anything of the place is still ahead, `level` halvings down.
  GG_MEMBER bool goes_on(int level, int depth) const {
    return level < depth && (rest != 0.0 || (digits & ((int64_t{1} << (depth - level)) - 1)) != 0);
  }
  GG_MEMBER uint64_t index(int level, int depth) const { return static_cast<uint64_t>(digits) >> (depth - level); }
  GG_MEMBER bool right(int level, int depth) const { return (digits >> (depth - 1 - level) & 1) != 0; }
};

// What is asked for: from one place to another, later one.
struct BrownianSpan {
  BrownianPlace from, to;
  double elapsed;
  bool reversed;

  static GG_MEMBER BrownianSpan of(const gg_brownian_params& p, int64_t graph) {
    const double start = p.start ? p.start[graph] : p.start_time, end = p.end ? p.end[graph] : p.end_time;
    const bool reversed = end < start;
    return {BrownianPlace::of(reversed ? end : start, p.cell, p.depth),
            BrownianPlace::of(reversed ? start : end, p.cell, p.depth), reversed ? start - end : end - start, reversed};
  }
  GG_MEMBER int64_t last_cell() const { return to.at_start() ? to.cell - 1 : to.cell; }
};

// The factors of a halving, rounded once.
template <class Real>
struct Halving {
  Real bend, flat, twist, half;

  static GG_MEMBER Halving of(double length) {
    const double root = sqrt(length);
    return {static_cast<Real>(root * 0.25), static_cast<Real>(root * 0.125),
            static_cast<Real>(root * 0.14433756729740643), static_cast<Real>(length * 0.5)};
  }
};

// The increment of a path over some time, and the integral of its distance from where it began.
template <class Real>
struct Travelled {
  Real w, u;

  GG_MEMBER void add(Real length, Real more_w, Real more_u) {
    u = u + (length * w + more_u);
    w = w + more_w;
  }
};

// One element on its way down to a place: the interval it is in, and what lies to the left of it in the cell.
template <class Real>
struct Descent {
  Real w, h;
  Travelled<Real> left;

  GG_MEMBER void halve(bool right, Real x, Real y, const Halving<Real>& factor) {
    const Real bend = Real(1.5) * h + factor.bend * x, flat = Real(0.25) * h - factor.flat * x;
    const Real twist = factor.twist * y, half = Real(0.5) * w;
    if (right) left.add(factor.half, half + bend, factor.half * (Real(0.5) * (half + bend) + (flat + twist)));
    w = right ? half - bend : half + bend;
    h = right ? flat - twist : flat + twist;
  }
  GG_MEMBER void finish(Real rest, Real length) {
    const Real square = rest * rest;
    const Real more_u = length * (Real(0.5) * square * w + (Real(3) * square - Real(2) * square * rest) * h);
    left.add(rest * length, rest * w + Real(6) * rest * (Real(1) - rest) * h, more_u);
  }
};

}  // namespace gg
