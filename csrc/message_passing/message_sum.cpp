#include "message_sum.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S, int Kind, int Order>
struct Messages {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kTerms = Order + 1;
  // Full vectors of a tile: what is added and what it is added to should stay in registers.
  static constexpr int kVectors = Order < 2 ? 4 : 2;

  const MessageSweep p;
  const Indices rowptr{p.edges.rowptr, p.index}, neighbor{p.edges.neighbor, p.index}, type{p.edges.type, p.index};

  const S* row(const void* rows, int64_t at) const { return static_cast<const S*>(rows) + at * p.features; }

  // All outputs of the rows [first, last), which are of one chunk.
  template <class Tile>
  void sum(const Tile& tile, int64_t first, int64_t last, Real* partial) const {
    using Vector = typename Tile::Vector;
    constexpr int N = Tile::vectors;
    // The partial sums are of the accumulation type, which for bfloat16 is wider than the rows.
    const gg::Tile<Real, N, Tile::partial> wide{tile.first, tile.count};
    for (int64_t i = first; i < last; ++i) {
      Vector own[kTerms][N], total[Order + 1][N] = {};
      for (int m = 0; m < kTerms; ++m)
        for (int v = 0; v < N; ++v) own[m][v] = p.own[m] ? tile.read(row(p.own[m], i), v) : Vector{};
      for (int64_t s = rowptr[i]; s < rowptr[i + 1]; ++s) {
        const int64_t j = neighbor[s], t = type ? type[s] : 0;
        for (int v = 0; v < N; ++v) {
          Vector z[kTerms], term[Order + 1];
          for (int m = 0; m < kTerms; ++m) {
            z[m] = own[m][v];
            if (p.other[m]) z[m] += tile.read(row(p.other[m], j), v);
            if (p.bias[m]) z[m] += tile.read(row(p.bias[m], t), v);
          }
          activation_terms<Kind, Order>(z, p.factors, term);
          for (int m = 0; m <= (p.factors ? Order : 0); ++m) {
            term[m] = rounded(term[m]);
            total[m][v] += term[m];
            if (p.types_out[m]) {
              Real* sums = partial + (p.place[m] * p.types + t) * p.features;
              wide.write(sums, v, wide.read(sums, v) + term[m]);
            }
          }
        }
      }
      for (int m = 0; m <= Order; ++m)
        if (p.rows_out[m])
          for (int v = 0; v < N; ++v) tile.write(static_cast<S*>(p.rows_out[m]) + i * p.features, v, total[m][v]);
    }
  }

  // Partial sums by type belong to fixed chunks of rows, so that they do not depend on the number of threads.
  void sum_chunks(int64_t first_chunk, int64_t last_chunk) const {
    const int64_t size = p.sums_by_type * p.types * p.features;
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      Real* partial = size ? static_cast<Real*>(p.partial) + chunk * size : nullptr;
      for (int64_t k = 0; k < size; ++k) partial[k] = 0;
      const int64_t first = chunk * GG_MESSAGE_CHUNK, end = first + GG_MESSAGE_CHUNK;
      for_each_coarse_tile<S, kVectors>(p.features,
                                        [&](auto tile) { sum(tile, first, end < p.rows ? end : p.rows, partial); });
    }
  }

  void run(int threads) const {
    auto body = [&](int64_t first, int64_t last) { sum_chunks(first, last); };
    for_rows(p.chunks(), 32 * p.features * GG_MESSAGE_CHUNK, threads, body);
    add_partials();
  }

  void add_partials() const {
    const int64_t chunks = p.chunks(), size = p.types * p.features, stride = p.sums_by_type * size;
    for (int m = 0; m <= Order; ++m) {
      if (!p.types_out[m]) continue;
      const Real* partial = static_cast<const Real*>(p.partial) + p.place[m] * size;
      for (int64_t k = 0; k < size; ++k) {
        Real sum = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * stride + k];
        store_scalar(static_cast<S*>(p.types_out[m]) + k, sum);
      }
    }
  }
};

void message_sum(const gg_message_sum_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      with_order(p.order, [&](auto order) {
        for (int by_source = 0; by_source < 2; ++by_source) {
          const MessageSweep sweep(p, by_source != 0);
          if (sweep.rows_wanted || sweep.sums_by_type)
            Messages<typename decltype(dtype)::type, decltype(kind)::value, decltype(order)::value>{sweep}.run(threads);
        }
      });
    });
  });
}

}  // namespace gg::GG_ISA
