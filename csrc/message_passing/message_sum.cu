#include "message_sum.h"

#include "../common/cuda_kernels.h"
#include "../common/indices.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"
#include "message_partials.cuh"

namespace gg::cuda {
namespace {

// Slots whose rows are loaded before the first is added: of all parts, about four rows at a time.
template <int Order>
constexpr int kInFlight = 4 / (Order + 1);

template <class S>
__device__ __forceinline__ const S* row_of(const void* rows, int64_t row, int64_t features) {
  return static_cast<const S*>(rows) + row * features;
}

// One thread a row and pack of features.
template <class S, int N, int Kind, int Order>
struct MessageRows {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kTerms = Order + 1, kSlots = kInFlight<Order>;
  MessageSweep p;
  Indices rowptr, neighbor, type;
  int64_t packs;

  // A null part counts as 0.
  __device__ __forceinline__ Pack<S, N> part(const void* rows, int64_t row, int64_t feature) const {
    return rows ? Pack<S, N>::load(row_of<S>(rows, row, p.features) + feature) : Pack<S, N>{};
  }

  __device__ __forceinline__ void operator()(int64_t item) const {
    const int64_t i = item / packs, feature = item % packs * N;
    const int64_t first = rowptr[i], last = rowptr[i + 1];
    Pack<S, N> own[kTerms];
#pragma unroll
    for (int m = 0; m < kTerms; ++m) own[m] = part(p.own[m], i, feature);
    Real sum[Order + 1][N] = {};
#pragma unroll 1
    for (int64_t s = first; s < last; s += kSlots) {
      int64_t j[kSlots], t[kSlots];
      Pack<S, N> other[kSlots][kTerms];
#pragma unroll
      for (int u = 0; u < kSlots; ++u)
        if (s + u < last) {
          j[u] = neighbor[s + u];
          t[u] = type ? type[s + u] : 0;
        }
#pragma unroll
      for (int u = 0; u < kSlots; ++u)
        if (s + u < last) {
#pragma unroll
          for (int m = 0; m < kTerms; ++m) other[u][m] = part(p.other[m], j[u], feature);
        }
#pragma unroll
      for (int u = 0; u < kSlots; ++u)
        if (s + u < last) {
          Pack<S, N> bias[kTerms];
#pragma unroll
          for (int m = 0; m < kTerms; ++m) bias[m] = part(p.bias[m], t[u], feature);
#pragma unroll
          for (int v = 0; v < N; ++v) {
            Real z[kTerms], term[Order + 1];
#pragma unroll
            for (int m = 0; m < kTerms; ++m) z[m] = own[m][v] + other[u][m][v] + bias[m][v];
            activation_terms<Kind, Order>(z, p.factors, term);
#pragma unroll
            for (int m = 0; m <= Order; ++m)
              if (m == 0 || p.factors) sum[m][v] = RealTraits<Real>::add_apart(sum[m][v], term[m]);
          }
        }
    }
#pragma unroll
    for (int m = 0; m <= Order; ++m)
      if (p.rows_out[m]) {
        Pack<S, N> result;
        for (int v = 0; v < N; ++v) result.set(v, sum[m][v]);
        result.store(static_cast<S*>(p.rows_out[m]) + i * p.features + feature);
      }
  }
};

// One block a chunk of rows, type and 32 features: its warps add equal runs of the chunk's rows, and the
// first warp adds those sums in order. Walking the slots once a type needs no table of sums that threads
// would share.
template <class S, int Kind, int Order>
struct MessageTypes {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kRun = GG_MESSAGE_CHUNK / kWarps;
  static constexpr int kTerms = Order + 1, kSlots = kInFlight<Order>;
  static_assert(kRun * kWarps == GG_MESSAGE_CHUNK, "warps share a chunk equally");
  MessageSweep p;
  Indices rowptr, neighbor, type;
  int64_t tiles;  // of 32 features

  __device__ __forceinline__ Real part(const void* rows, int64_t row, int64_t feature) const {
    return rows ? load_scalar(row_of<S>(rows, row, p.features) + feature) : Real(0);
  }

  __device__ __forceinline__ void add_run(int64_t first_row, int64_t wanted, int64_t feature,
                                          Real (&sum)[Order + 1]) const {
    const int64_t end = first_row + kRun < p.rows ? first_row + kRun : p.rows;
    Real bias[kTerms];
#pragma unroll
    for (int m = 0; m < kTerms; ++m) bias[m] = part(p.bias[m], wanted, feature);
#pragma unroll 1
    for (int64_t i = first_row; i < end; ++i) {
      const int64_t first = rowptr[i], last = rowptr[i + 1];
      Real own[kTerms];
#pragma unroll
      for (int m = 0; m < kTerms; ++m) own[m] = part(p.own[m], i, feature);
#pragma unroll 1
      for (int64_t s = first; s < last; s += kSlots) {
        int64_t j[kSlots];
        bool match[kSlots];
        Real other[kSlots][kTerms];
#pragma unroll
        for (int u = 0; u < kSlots; ++u) {
          match[u] = s + u < last && (type ? type[s + u] : 0) == wanted;
          if (s + u < last) j[u] = neighbor[s + u];
        }
#pragma unroll
        for (int u = 0; u < kSlots; ++u)
          if (match[u]) {
#pragma unroll
            for (int m = 0; m < kTerms; ++m) other[u][m] = part(p.other[m], j[u], feature);
          }
#pragma unroll
        for (int u = 0; u < kSlots; ++u)
          if (match[u]) {
            Real z[kTerms], term[Order + 1];
#pragma unroll
            for (int m = 0; m < kTerms; ++m) z[m] = own[m] + other[u][m] + bias[m];
            activation_terms<Kind, Order>(z, p.factors, term);
#pragma unroll
            for (int m = 0; m <= Order; ++m)
              if (m == 0 || p.factors) sum[m] = RealTraits<Real>::add_apart(sum[m], term[m]);
          }
      }
    }
  }

  __device__ __forceinline__ void operator()(int64_t block) const {
    __shared__ Real sums[kWarps][kWarp];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int64_t feature = block % tiles * kWarp + lane, rest = block / tiles;
    const int64_t wanted = rest % p.types, chunk = rest / p.types;
    Real sum[Order + 1] = {};
    if (feature < p.features) add_run(chunk * GG_MESSAGE_CHUNK + warp * kRun, wanted, feature, sum);
#pragma unroll
    for (int m = 0; m <= Order; ++m) {
      if (!p.types_out[m]) continue;
      sums[warp][lane] = sum[m];
      __syncthreads();
      if (warp == 0 && feature < p.features) {
        Real total = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) total += sums[w][lane];
        const int64_t place = chunk * p.sums_by_type + p.place[m];
        static_cast<Real*>(p.partial)[(place * p.types + wanted) * p.features + feature] = total;
      }
      __syncthreads();
    }
  }
};

template <int Kind, int Order>
gg_status message_rows(const MessageSweep& p, int dtype, void* stream) {
  auto packed = [&](auto type) {
    using S = typename decltype(type)::type;
    bool all = true;
    for (int m = 0; m <= Order; ++m)
      all = all && packable<S>(p.features, p.own[m], p.other[m], p.bias[m], static_cast<const void*>(p.rows_out[m]));
    return all;
  };
  // At order 3 eight rows of accumulators do not fit the registers.
  return with_pack<Order == 3 ? 4 : 8>(dtype, packed, [&](auto type, auto width) {
    constexpr int N = decltype(width)::value;
    const int64_t packs = p.features / N;
    const MessageRows<typename decltype(type)::type, N, Kind, Order> kernel{
        p, {p.edges.rowptr, p.index}, {p.edges.neighbor, p.index}, {p.edges.type, p.index}, packs};
    return launch_items("message_sum", p.rows * packs, stream, kernel);
  });
}

template <int Kind, int Order>
gg_status message_types(const MessageSweep& p, int dtype, void* stream) {
  return with_dtype(dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    using Real = typename Accumulator<S>::Type;
    const int64_t tiles = (p.features + kWarp - 1) / kWarp, size = p.types * p.features;
    const MessageTypes<S, Kind, Order> kernel{
        p, {p.edges.rowptr, p.index}, {p.edges.neighbor, p.index}, {p.edges.type, p.index}, tiles};
    if (gg_status status = launch_blocks("message_sum", p.chunks() * p.types * tiles, stream, kernel)) return status;
    for (int m = 0; m <= Order; ++m) {
      if (!p.types_out[m]) continue;
      const AddPartials<S> add{static_cast<const Real*>(p.partial) + p.place[m] * size, static_cast<S*>(p.types_out[m]),
                               p.chunks(), p.sums_by_type * size};
      if (gg_status status = launch_items("message_sum", size, stream, add)) return status;
    }
    return GG_OK;
  });
}

}  // namespace

gg_status message_sum(const gg_message_sum_params& p, void* stream) {
  return with_activation(p.activation, [&](auto kind) {
    return with_order(p.order, [&](auto order) {
      constexpr int Kind = decltype(kind)::value, Order = decltype(order)::value;
      for (int by_source = 0; by_source < 2; ++by_source) {
        const MessageSweep sweep(p, by_source != 0);
        if (sweep.sums_by_type)
          if (gg_status status = message_types<Kind, Order>(sweep, p.dtype, stream)) return status;
        if (sweep.rows_wanted)
          if (gg_status status = message_rows<Kind, Order>(sweep, p.dtype, stream)) return status;
      }
      return GG_OK;
    });
  });
}

}  // namespace gg::cuda
