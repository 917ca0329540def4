#include "brownian.h"

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "draw.h"

namespace gg::GG_ISA {

constexpr int kWidth = 4 * (kBlocks + kLanes);

// The elements of a load on their way.
template <class Real>
class Journey {
 public:
  Journey(const gg_brownian_params& p, const Load& load) : p_(p), load_(load), count_(4 * load.blocks) {}

  const Real* increment() const { return total_.w; }
  const Real* integral() const { return total_.u; }

  void over(const BrownianSpan& span) {
    for (int e = 0; e < count_; ++e) total_.w[e] = total_.u[e] = Real(0);
    const int64_t last = span.last_cell();
    for (int64_t cell = span.from.cell; cell <= last; ++cell) {
      const bool begins = cell > span.from.cell || span.from.at_start(), ends = cell < span.to.cell;
      draw(p_.noise.seed, cell, along_);
      const Real root = static_cast<Real>(sqrt(p_.cell));
      if (begins && ends && !p_.integral) {
        for (int e = 0; e < count_; ++e) total_.w[e] = total_.w[e] + root * static_cast<Real>(along_[e]);
        continue;
      }
      draw(BrownianKeys::of(p_.noise.seed, p_.noise.stream, cell, kCellLevel, 0).across, cell, across_);
      const Real wide = static_cast<Real>(sqrt(p_.cell / 12.0));
      for (int e = 0; e < count_; ++e) {
        cell_.w[e] = root * static_cast<Real>(along_[e]);
        cell_.u[e] = wide * static_cast<Real>(across_[e]);
      }
      const double since = begins ? 0.0 : span.from.since(p_.cell, p_.depth);
      const double until = ends ? p_.cell : span.to.since(p_.cell, p_.depth);
      if (!begins) descend(span.from, from_);
      if (ends) {
        const Real length = static_cast<Real>(p_.cell);
        for (int e = 0; e < count_; ++e) {
          to_.w[e] = cell_.w[e];
          to_.u[e] = length * (Real(0.5) * cell_.w[e] + cell_.u[e]);
        }
      } else {
        descend(span.to, to_);
      }
      add(static_cast<Real>(until - since), begins);
    }
    if (span.reversed) reverse(static_cast<Real>(span.elapsed));
  }

 private:
  struct Strip {
    Real w[kWidth], u[kWidth];
  };

  void draw(uint64_t seed, int64_t cell, float* values) const {
    gg::GG_ISA::draw<GG_NORMAL>(load_.counters, load_.blocks, seed, static_cast<uint32_t>(cell), values);
  }

  // What the path has travelled from the start of its cell to a place in it.
  void descend(const BrownianPlace& place, Strip& done) {
    for (int e = 0; e < count_; ++e) {
      here_.w[e] = cell_.w[e];
      here_.u[e] = cell_.u[e];
      done.w[e] = done.u[e] = Real(0);
    }
    double length = p_.cell;
    int level = 0;
    for (; place.goes_on(level, p_.depth); ++level, length *= 0.5) {
      const BrownianKeys keys =
          BrownianKeys::of(p_.noise.seed, p_.noise.stream, place.cell, level, place.index(level, p_.depth));
      draw(keys.along, place.cell, along_);
      draw(keys.across, place.cell, across_);
      const Halving<Real> factor = Halving<Real>::of(length);
      if (place.right(level, p_.depth)) {
        halve<true>(factor, done);
      } else {
        halve<false>(factor, done);
      }
    }
    if (place.rest == 0.0) return;
    const Real rest = static_cast<Real>(place.rest), end = static_cast<Real>(length);
    for (int e = 0; e < count_; ++e) {
      Descent<Real> element{here_.w[e], here_.u[e], {done.w[e], done.u[e]}};
      element.finish(rest, end);
      done.w[e] = element.left.w;
      done.u[e] = element.left.u;
    }
  }

  template <bool right>
  void halve(const Halving<Real>& factor, Strip& done) {
    for (int e = 0; e < count_; ++e) {
      Descent<Real> element{here_.w[e], here_.u[e], {done.w[e], done.u[e]}};
      element.halve(right, static_cast<Real>(along_[e]), static_cast<Real>(across_[e]), factor);
      here_.w[e] = element.w;
      here_.u[e] = element.h;
      done.w[e] = element.left.w;
      done.u[e] = element.left.u;
    }
  }

  void add(Real length, bool begins) {
    for (int e = 0; e < count_; ++e) {
      Travelled<Real> total{total_.w[e], total_.u[e]};
      if (begins) {
        total.add(length, to_.w[e], to_.u[e]);
      } else {
        total.add(length, to_.w[e] - from_.w[e], (to_.u[e] - from_.u[e]) - length * from_.w[e]);
      }
      total_.w[e] = total.w;
      total_.u[e] = total.u;
    }
  }

  void reverse(Real elapsed) {
    for (int e = 0; e < count_; ++e) {
      total_.u[e] = elapsed * total_.w[e] - total_.u[e];
      total_.w[e] = -total_.w[e];
    }
  }

  const gg_brownian_params& p_;
  const Load& load_;
  int count_;
  float along_[kWidth], across_[kWidth];
  Strip cell_, here_, from_, to_, total_;  // of a cell and of the interval a descent is in: u is H
};

template <class S, class Real>
static void write(S* out, const Real* values, int count) {
  for (int k = 0; k < count; ++k) store_scalar(out + k, values[k]);
}

void brownian(const gg_brownian_params& p, int threads) {
  const Batch batch(p.noise, p.features);
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    using Real = typename Accumulator<S>::Type;
    auto body = [&](int64_t begin, int64_t end) {
      for_each_load(batch, begin, end, p.start || p.end, [&](const Load& load) {
        Journey<Real> journey(p, load);
        journey.over(BrownianSpan::of(p, load.runs[0].graph));
        load.each([&](int64_t graph, int64_t first, int count, int at) {
          const int64_t place = batch.start(graph) + first;
          write(static_cast<S*>(p.out) + place, journey.increment() + at, count);
          if (p.integral) write(static_cast<S*>(p.integral) + place, journey.integral() + at, count);
        });
      });
    };
    const int64_t mean_elements = p.graphs > 0 ? p.rows * p.features / p.graphs + 1 : 1;
    for_rows(p.graphs, 40 * mean_elements, threads, body);
  });
}

}  // namespace gg::GG_ISA
