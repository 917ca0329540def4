#include "message_push.h"

#include "../common/dispatch.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

// Rows of one array's tangents; a negative row reads as 0.
template <class S>
struct Tangents {
  const S* at;
  int64_t rows, features;

  const S* row(int64_t tangent, int64_t row) const { return at + (tangent * rows + row) * features; }
};

template <class S, int Kind, int Together>
struct MessagePush {
  static constexpr Activation kKind = static_cast<Activation>(Kind);

  const gg_message_push_params p;
  const TangentRows where{p};
  const Indices rowptr{p.edges.rowptr, p.index}, neighbor{p.edges.neighbor, p.index}, type{p.edges.type, p.index};
  const Tangents<S> target_along{static_cast<const S*>(p.target_along), p.target_rows, p.features};
  const Tangents<S> source_along{static_cast<const S*>(p.source_along), p.source_rows, p.features};

  const S* row(const void* rows, int64_t at) const { return static_cast<const S*>(rows) + at * p.features; }
  S* row(void* rows, int64_t at) const { return static_cast<S*>(rows) + at * p.features; }

  // The sums of row r over its slots: of the tangents [first, first + count), and of the value if it is wanted.
  template <class Tile>
  void sum(const Tile& tile, int64_t r, int64_t first, int count, bool with_value) const {
    using Vector = typename Tile::Vector;
    constexpr int N = Tile::vectors;
    const int64_t i = where.node(r), begin = rowptr[i], own = where.of_target(r);
    if constexpr (Together == 1) count = 1;
    Vector target[N], value[N] = {}, moved[Together][N], total[Together][N];
    for (int v = 0; v < N; ++v) target[v] = tile.read(row(p.target, i), v);
    for (int k = 0; k < count; ++k)
      for (int v = 0; v < N; ++v) {
        moved[k][v] = own < 0 ? Vector{} : tile.read(target_along.row(first + k, own), v);
        total[k][v] = Vector{};
      }
    for (int64_t s = begin; s < rowptr[i + 1]; ++s) {
      const int64_t j = neighbor[s], t = type ? type[s] : 0, from = where.of_source(r, s - begin, j);
      if (own < 0 && from < 0) continue;
      Vector slope[N];
      for (int v = 0; v < N; ++v) {
        const Vector z = target[v] + tile.read(row(p.source, j), v) + tile.read(row(p.bias, t), v);
        slope[v] = activation<kKind, 1>(z);
        if (with_value) value[v] += rounded(activation<kKind, 0>(z));
      }
      for (int k = 0; k < count; ++k)
        for (int v = 0; v < N; ++v) {
          Vector along = moved[k][v];
          if (from >= 0) along += tile.read(source_along.row(first + k, from), v);
          total[k][v] += rounded(slope[v] * along);
        }
    }
    for (int v = 0; v < N; ++v) {
      if (with_value) tile.write(row(p.value, r), v, value[v]);
      for (int k = 0; k < count; ++k) tile.write(row(p.tangent, (first + k) * p.rows + r), v, total[k][v]);
    }
  }

  void run(int threads) const {
    auto body = [&](int64_t first_row, int64_t last_row) {
      for_each_coarse_tile<S, 4>(p.features, [&](auto tile) {
        for (int64_t r = first_row; r < last_row; ++r)
          for (int64_t k = 0; k < p.count; k += Together)
            sum(tile, r, k, static_cast<int>(p.count - k < Together ? p.count - k : Together), k == 0 && p.value);
      });
    };
    for_rows(p.rows, 16 * p.features * (1 + p.count), threads, body);
  }
};

void message_push(const gg_message_push_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    with_activation(p.activation, [&](auto kind) {
      with_tangents<8>(p.count, [&](auto together) {
        MessagePush<typename decltype(dtype)::type, decltype(kind)::value, decltype(together)::value>{p}.run(threads);
      });
    });
  });
}

}  // namespace gg::GG_ISA
