#include "message_pull.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

#include <string.h>

namespace gg::GG_ISA {

// With one thread, a sweep by target adds to the rows of its neighbours too (`Both`): a source's edges then come in the
// order of their targets, as in the sweep by source that this saves, and the sums have the same bits. The rows must be
// able to hold partial sums.
template <class S, int Kind, int Together, bool Both>
struct MessagePull {
  using Real = typename Accumulator<S>::Type;
  static constexpr Activation kKind = static_cast<Activation>(Kind);

  const PullSweep p;
  void *const to_others, *const to_others_along;
  const Indices rowptr{p.edges.rowptr, p.index}, neighbor{p.edges.neighbor, p.index}, type{p.edges.type, p.index};

  const S* row(const void* rows, int64_t at) const { return static_cast<const S*>(rows) + at * p.features; }
  S* row(void* rows, int64_t at) const { return static_cast<S*>(rows) + at * p.features; }

  template <class Tile, class Vector>
  void add(const Tile& tile, void* rows, int64_t at, int v, Vector term) const {
    if (rows) tile.write(row(rows, at), v, tile.read(row(rows, at), v) + term);
  }

  // The sums of row i for the tangents [first, first + count), those of z added to what `total` has of the tangents
  // before.
  template <class Tile, class Vector>
  void sum(const Tile& tile, int64_t i, int64_t first, int count, Vector* total, Real* partial) const {
    constexpr int N = Tile::vectors;
    if constexpr (Together == 1) count = 1;
    const gg::Tile<Real, N, Tile::partial> wide{tile.first, tile.count};
    const bool for_z = p.to_rows || p.to_types || to_others, from_value = p.value_grad && first == 0;
    Vector own[N], own_grad[N], moved[Together][N], grad[Together][N], along_total[Together][N];
    for (int v = 0; v < N; ++v) {
      own[v] = tile.read(row(p.own, i), v);
      own_grad[v] = from_value ? tile.read(row(p.value_grad, i), v) : Vector{};
    }
    for (int k = 0; k < count; ++k) {
      const int64_t at = (first + k) * p.rows + i;
      for (int v = 0; v < N; ++v) {
        moved[k][v] = tile.read(row(p.own_along, at), v);
        grad[k][v] = tile.read(row(p.tangent_grad, at), v);
        along_total[k][v] = Vector{};
      }
    }
    for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
      const int64_t j = neighbor[s], t = type ? type[s] : 0, target = p.by_source ? j : i;
      for (int v = 0; v < N; ++v) {
        const Vector z = own[v] + tile.read(row(p.other, j), v) + tile.read(row(p.bias, t), v);
        const Vector slope = activation<kKind, 1>(z);
        Vector product{};
        for (int k = 0; k < count; ++k) {
          const int64_t at = (first + k) * p.rows;
          const Vector y = p.by_source ? tile.read(row(p.tangent_grad, at + target), v) : grad[k][v];
          const Vector along = moved[k][v] + tile.read(row(p.other_along, at + j), v);
          product += rounded(along * y);
          const Vector part = rounded(slope * y);
          along_total[k][v] += part;
          if constexpr (Both) add(tile, to_others_along, at + j, v, part);
        }
        if (!for_z) continue;
        Vector term = rounded(activation<kKind, 2>(z) * product);
        if (from_value) {
          const Vector w = p.by_source ? tile.read(row(p.value_grad, target), v) : own_grad[v];
          term += rounded(slope * w);
        }
        term = rounded(term);
        total[v] += term;
        if constexpr (Both) add(tile, to_others, j, v, term);
        if (p.to_types) {
          Real* sums = partial + t * p.features;
          wide.write(sums, v, wide.read(sums, v) + term);
        }
      }
    }
    if (!p.to_along) return;
    for (int k = 0; k < count; ++k)
      for (int v = 0; v < N; ++v) tile.write(row(p.to_along, (first + k) * p.rows + i), v, along_total[k][v]);
  }

  // Partial sums by type belong to fixed chunks of rows, so that they do not depend on the number of threads.
  void sum_chunks(int64_t first_chunk, int64_t last_chunk) const {
    const int64_t size = p.to_types ? p.types * p.features : 0;
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      Real* partial = size ? static_cast<Real*>(p.partial) + chunk * size : nullptr;
      for (int64_t k = 0; k < size; ++k) partial[k] = 0;
      const int64_t first = chunk * GG_MESSAGE_CHUNK, end = first + GG_MESSAGE_CHUNK;
      for_each_coarse_tile<S, 2>(p.features, [&](auto tile) {
        using Tile = decltype(tile);
        for (int64_t i = first; i < (end < p.rows ? end : p.rows); ++i) {
          typename Tile::Vector total[Tile::vectors] = {};
          for (int64_t k = 0; k < p.count; k += Together)
            sum(tile, i, k, static_cast<int>(p.count - k < Together ? p.count - k : Together), total, partial);
          if (p.to_rows)
            for (int v = 0; v < Tile::vectors; ++v) tile.write(row(p.to_rows, i), v, total[v]);
        }
      });
    }
  }

  void run(int threads) const {
    auto body = [&](int64_t first, int64_t last) { sum_chunks(first, last); };
    for_rows(p.chunks(), 32 * p.features * GG_MESSAGE_CHUNK, threads, body);
    if (!p.to_types) return;
    const int64_t chunks = p.chunks(), size = p.types * p.features;
    for (int64_t k = 0; k < size; ++k) {
      Real sum = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += static_cast<const Real*>(p.partial)[chunk * size + k];
      store_scalar(static_cast<S*>(p.to_types) + k, sum);
    }
  }
};

void message_pull(const gg_message_pull_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      with_tangents<4>(p.count, [&](auto together) {
        using S = typename decltype(dtype)::type;
        constexpr int Kind = decltype(kind)::value, Together = decltype(together)::value;
        const PullSweep by_target(p, false), by_source(p, true);
        if constexpr (sizeof(S) > sizeof(bfloat16))
          if (threads == 1 && p.count <= Together && p.to_source && p.to_source_along) {
            const int64_t size = p.rows * p.features * sizeof(S);
            memset(p.to_source, 0, size);
            memset(p.to_source_along, 0, size * p.count);
            return MessagePull<S, Kind, Together, true>{by_target, p.to_source, p.to_source_along}.run(1);
          }
        if (p.to_target || p.to_bias || p.to_target_along)
          MessagePull<S, Kind, Together, false>{by_target, nullptr, nullptr}.run(threads);
        if (p.to_source || p.to_source_along)
          MessagePull<S, Kind, Together, false>{by_source, nullptr, nullptr}.run(threads);
      });
    });
  });
}

}  // namespace gg::GG_ISA
