#include "softmax.h"

#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

// One group of threads a row; its size depends on the number of features alone, and so does the order of the
// sum.
template <class S>
struct Softmax {
  using Real = typename Accumulator<S>::Type;
  const S* x;
  S* out;
  int64_t features;
  Group group;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t start = (item >> group.bits) * features;
    const int lane = group.lane(), size = group.size();
    const S* from = x + start;
    S* to = out + start;
    Real highest = load_scalar(from + (lane < features ? lane : 0));
    for (int64_t f = lane + size; f < features; f += size) highest = softmax_max(highest, load_scalar(from + f));
    for (int distance = size / 2; distance > 0; distance /= 2)
      highest = softmax_max(highest, group.exchange(highest, distance));
    Real sum = 0;
    for (int64_t f = lane; f < features; f += size) sum += softmax_term(load_scalar(from + f), highest);
    for (int distance = size / 2; distance > 0; distance /= 2) sum += group.exchange(sum, distance);
    for (int64_t f = lane; f < features; f += size)
      store_scalar(to + f, softmax_term(load_scalar(from + f), highest) / sum);
  }
};

}  // namespace

gg_status softmax(const gg_softmax_params& p, void* stream) {
  if (p.features == 0) return GG_OK;
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const Group group = Group::of((p.features + 3) / 4);
    const Softmax<S> kernel{static_cast<const S*>(p.x), static_cast<S*>(p.out), p.features, group};
    return launch_items("softmax", p.rows * group.size(), stream, kernel);
  });
}

}  // namespace gg::cuda
