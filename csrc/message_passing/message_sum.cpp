#include "message_sum.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S, int Kind, int Order>
struct Messages {
  using Real = typename Accumulator<S>::Type;

  const gg_message_sum_params& p;
  const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index}, type{p.type, p.index};

  const S* row(const void* const (&parts)[GG_MESSAGE_ORDERS], int m, int64_t at) const {
    return static_cast<const S*>(parts[m]) + at * p.features;
  }

  // term[v] of one slot; `own` holds the target's part of every z.
  template <class Tile, class Vector, int N>
  GG_MEMBER void terms(const Tile& tile, const Vector (&own)[Order + 1][N], int64_t slot, Vector (&term)[N]) const {
    const int64_t j = neighbor[slot], t = type ? type[slot] : 0;
    for (int v = 0; v < N; ++v) {
      Vector z[Order + 1];
      for (int m = 0; m <= Order; ++m) {
        z[m] = own[m][v];
        if (p.source[m]) z[m] += tile.read(row(p.source, m, j), v);
        if (p.bias[m]) z[m] += tile.read(row(p.bias, m, t), v);
      }
      term[v] = rounded(message_term<Kind, Order>(z));
    }
  }

  template <class Tile, class Vector, int N>
  GG_MEMBER void own_parts(const Tile& tile, int64_t i, Vector (&own)[Order + 1][N]) const {
    for (int m = 0; m <= Order; ++m)
      for (int v = 0; v < N; ++v) own[m][v] = p.target[m] ? tile.read(row(p.target, m, i), v) : Vector{};
  }

  void sum_rows(int64_t first, int64_t last) const {
    for_each_tile<S>(p.features, [&](auto tile) {
      using Vector = typename decltype(tile)::Vector;
      constexpr int N = decltype(tile)::vectors;
      for (int64_t i = first; i < last; ++i) {
        Vector own[Order + 1][N], sum[N] = {}, term[N];
        own_parts(tile, i, own);
        for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
          terms(tile, own, s, term);
          for (int v = 0; v < N; ++v) sum[v] += term[v];
        }
        for (int v = 0; v < N; ++v) tile.write(static_cast<S*>(p.out) + i * p.features, v, sum[v]);
      }
    });
  }

  // Partial sums over fixed chunks of rows, so that the result does not depend on the number of threads.
  void sum_types(int64_t first_chunk, int64_t last_chunk) const {
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      Real* partial = static_cast<Real*>(p.partial) + chunk * p.types * p.features;
      for (int64_t k = 0; k < p.types * p.features; ++k) partial[k] = 0;
      const int64_t end = (chunk + 1) * GG_MESSAGE_CHUNK < p.rows ? (chunk + 1) * GG_MESSAGE_CHUNK : p.rows;
      for_each_tile<S>(p.features, [&](auto tile) {
        using Vector = typename decltype(tile)::Vector;
        constexpr int N = decltype(tile)::vectors;
        // The partial sums are of the accumulation type, which for bfloat16 is wider than the rows.
        const Tile<Real, N, (decltype(tile)::partial)> wide{tile.first, tile.count};
        for (int64_t i = chunk * GG_MESSAGE_CHUNK; i < end; ++i) {
          Vector own[Order + 1][N], term[N];
          own_parts(tile, i, own);
          for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
            terms(tile, own, s, term);
            Real* sums = partial + (type ? type[s] : 0) * p.features;
            for (int v = 0; v < N; ++v) wide.write(sums, v, wide.read(sums, v) + term[v]);
          }
        }
      });
    }
  }

  void add_partials() const {
    const int64_t chunks = (p.rows + GG_MESSAGE_CHUNK - 1) / GG_MESSAGE_CHUNK, size = p.types * p.features;
    const Real* partial = static_cast<const Real*>(p.partial);
    for (int64_t k = 0; k < size; ++k) {
      Real sum = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * size + k];
      store_scalar(static_cast<S*>(p.out) + k, sum);
    }
  }
};

void message_sum(const gg_message_sum_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      with_order(p.order, [&](auto order) {
        Messages<typename decltype(dtype)::type, decltype(kind)::value, decltype(order)::value> messages{p};
        if (!p.by_type) {
          auto body = [&](int64_t first, int64_t last) { messages.sum_rows(first, last); };
          return for_rows(p.rows, 32 * p.features, threads, body);
        }
        auto body = [&](int64_t first, int64_t last) { messages.sum_types(first, last); };
        const int64_t chunks = (p.rows + GG_MESSAGE_CHUNK - 1) / GG_MESSAGE_CHUNK;
        for_rows(chunks, 32 * p.features * GG_MESSAGE_CHUNK, threads, body);
        messages.add_partials();
      });
    });
  });
}

}  // namespace gg::GG_ISA
