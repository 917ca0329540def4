#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

__device__ __forceinline__ bool within(int64_t row, int64_t rows) {
  return static_cast<uint64_t>(row) < static_cast<uint64_t>(rows);
}

// One thread a row of the result and pack of features.
template <class S, int N>
struct Gather {
  gg_gather_params p;
  Indices position;
  int64_t packs, per_column;  // of a row; features

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t k = item / packs, feature = item % packs * N, row = position[k * p.columns + feature / per_column];
    Pack<S, N> value = {};
    if (within(row, p.rows)) value = Pack<S, N>::load(static_cast<const S*>(p.src) + row * p.features + feature);
    value.store(static_cast<S*>(p.out) + k * p.features + feature);
  }
};

// One thread an element.
template <class S>
struct Pick {
  gg_pick_params p;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = p.arg[item];
    const S* src = static_cast<const S*>(p.src);
    static_cast<S*>(p.out)[item] = within(row, p.rows) ? src[row * p.features + item % p.features] : S{};
  }
};

template <class S>
struct Place {
  gg_place_rows_params p;

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t row = p.arg[item];
    S* out = static_cast<S*>(p.out);
    if (within(row, p.rows)) out[row * p.features + item % p.features] = static_cast<const S*>(p.src)[item];
  }
};

}  // namespace

gg_status gather(const gg_gather_params& p, void* stream) {
  const int64_t per_column = p.columns > 0 ? p.features / p.columns : 0;
  return with_any_pack(
      p.dtype, [&](auto type) { return packable<typename decltype(type)::type>(per_column, p.src, p.out); },
      [&](auto type, auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t packs = p.features / N;
        const Gather<typename decltype(type)::type, N> kernel{p, {p.position, p.index}, packs, per_column};
        return launch_items("gather", p.count * packs, stream, kernel);
      });
}

gg_status pick(const gg_pick_params& p, void* stream) {
  return with_any_dtype(p.dtype, [&](auto type) {
    return launch_items("pick", p.count * p.features, stream, Pick<typename decltype(type)::type>{p});
  });
}

gg_status place_rows(const gg_place_rows_params& p, void* stream) {
  return with_any_dtype(p.dtype, [&](auto type) {
    return launch_items("place_rows", p.count * p.features, stream, Place<typename decltype(type)::type>{p});
  });
}

gg_status scatter(const gg_scatter_params&, void*) {
  return fail(GG_INVALID_ARGUMENT, "scatter on CUDA: group the rows by a sort and reduce segments instead");
}

gg_status group_rows(const gg_group_rows_params&, void*) {
  return fail(GG_INVALID_ARGUMENT, "group_rows on CUDA: sort the positions by their values before the call instead");
}

}  // namespace gg::cuda
