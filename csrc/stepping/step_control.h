// What becomes of one graph between two steps, once for the CPU and the CUDA kernels.
#pragma once

#include "../common/bfloat16.h"
#include "../common/host_device.h"
#include "../graphgen.h"

#include <stdint.h>

namespace gg {

struct Verdict {
  bool on_way, accepted, failed;
};

// The largest ratio in [shrink, grow] that is at most safety * error^(-1 / order), to a thousandth of that range; the
// smallest if the error is no number. Products and comparisons only, so that every processor finds the same bits.
GG_HD double length_ratio(const gg_step_control_params& p, double squared_error) {
  double good = p.shrink, bad = p.grow;
  for (int k = 0; k < 11; ++k) {
    const double tried = k == 0 ? p.grow : 0.5 * (good + bad), part = tried / p.safety;
    double scaled = squared_error;
    for (int n = 0; n < p.order; ++n) scaled = scaled * part * part;
    if (scaled <= 1) {
      good = tried;
      if (k == 0) break;
    } else {
      bad = tried;
    }
  }
  return good;
}

template <class S>
GG_HD Verdict control_graph(const gg_step_control_params& p, int64_t graph) {
  using Real = typename Accumulator<S>::Type;
  double done = p.done[graph], length = p.length[graph];
  bool accepted = false;
  if (p.parts > 0 && p.failed_at[graph] < 0 && done < p.span) {
    double square = 0;
    int64_t elements = 0;
    for (int k = 0; k < p.parts; ++k) {
      const int64_t* ptr = static_cast<const int64_t*>(p.ptr[k]);
      const int64_t own = (ptr[graph + 1] - ptr[graph]) * p.features[k];
      const double norm = static_cast<double>(static_cast<const Real*>(p.norm[k])[graph]);
      square = square + norm * norm * static_cast<double>(own);
      elements += own;
    }
    if (elements > 0) square = square / static_cast<double>(elements);
    accepted = p.equal_steps ? square - square == 0 : square <= 1;
    if (accepted)
      done = length >= p.span - done ? p.span : done + length;
    else if (p.equal_steps || length <= p.span * p.smallest)
      p.failed_at[graph] = p.step;
    if (!p.equal_steps) {
      const double ratio = length_ratio(p, square);
      length = length * (accepted || ratio < p.safety ? ratio : p.safety);
    } else if (accepted) {
      // The end of the step as its number gives it, so that nothing adds up over the steps.
      const int64_t taken = p.step + 1;
      done = taken < p.equal_steps ? p.span * static_cast<double>(taken) / static_cast<double>(p.equal_steps) : p.span;
    }
  }
  const bool failed = p.failed_at[graph] >= 0, on_way = !failed && done < p.span;
  if (p.equal_steps) {
    const int64_t next = p.step + (p.parts > 0 ? 2 : 1);
    length = p.span * static_cast<double>(next) / static_cast<double>(p.equal_steps) - done;
  }
  const double left = p.span - done;
  if (length > left) length = left;
  const double tried = on_way ? length : 0;
  p.done[graph] = done;
  p.length[graph] = length;
  p.accepted[graph] = accepted;
  static_cast<Real*>(p.h)[graph] = static_cast<Real>(p.direction * tried);
  for (int k = 0; k < p.stages; ++k)
    static_cast<Real*>(p.time)[k * p.graphs + graph] =
        static_cast<Real>(p.start + p.direction * (done + p.node[k] * tried));
  return {on_way, accepted, failed};
}

}  // namespace gg
