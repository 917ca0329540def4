#include "segment_reduce.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

// The slots of every segment, and the rows they stand for.
struct Segments {
  Indices ptr, order;

  template <class Params>
  explicit Segments(const Params& p) : ptr(p.ptr, p.index), order(p.order, p.index) {}
  int64_t begin(int64_t s) const { return ptr[s]; }
  int64_t end(int64_t s) const { return ptr[s + 1]; }
  int64_t row(int64_t slot) const { return order ? order[slot] : slot; }
};

template <int Reduce, class Vector>
static inline Vector finished_lanes(Vector folded, int64_t count) {
  using Scalar = typename RealTraits<Vector>::Scalar;
  if constexpr (Reduce == GG_MEAN && std::is_integral_v<Scalar>) {
    for (int lane = 0; lane < int(sizeof(Vector) / sizeof(Scalar)); ++lane)
      folded[lane] = finished<Reduce, Scalar>(folded[lane], count);
    return folded;
  }
  return Reduce == GG_MEAN ? folded * reduce_scale<Scalar>(Reduce, count) : folded;
}

template <class S, int Reduce>
static void fold_rows(const gg_segment_reduce_params& p, int64_t first, int64_t last) {
  const S* src = static_cast<const S*>(p.src);
  const Segments segments(p);
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    for (int64_t s = first; s < last; ++s) {
      Vector folded[N];
      for (int v = 0; v < N; ++v) folded[v] = Vector{} + (Reduce == GG_MUL ? 1 : 0);
      const int64_t begin = segments.begin(s), end = segments.end(s);
      for (int64_t k = begin; k < end; ++k)
        for (int v = 0; v < N; ++v)
          folded[v] = fold<Reduce>(folded[v], tile.read(src + segments.row(k) * p.features, v));
      for (int v = 0; v < N; ++v) tile.write(out + s * p.features, v, finished_lanes<Reduce>(folded[v], end - begin));
    }
  });
}

// A lane counts slots in as many bits as its values have, so a long segment is walked in pieces.
constexpr int64_t kSlotsPerPiece = int64_t{1} << 30;

template <class S, int Reduce, bool WithArg>
static void extreme_rows(const gg_segment_reduce_params& p, int64_t first, int64_t last) {
  const S* src = static_cast<const S*>(p.src);
  const Segments segments(p);
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Tile = decltype(tile);
    using Vector = typename Tile::Vector;
    using Integer = typename RealTraits<Vector>::Integer;
    using Count = typename RealTraits<Integer>::Scalar;
    constexpr int N = Tile::vectors, lanes = Simd<S>::lanes;
    const int filled = Tile::partial ? tile.count : N * lanes;
    for (int64_t s = first; s < last; ++s) {
      const int64_t begin = segments.begin(s), end = segments.end(s);
      int64_t* arg = WithArg ? p.arg + s * p.features + tile.first : nullptr;
      Vector best[N] = {};
      if (begin < end) {
        for (int v = 0; v < N; ++v) best[v] = tile.read(src + segments.row(begin) * p.features, v);
      } else if (WithArg) {
        for (int lane = 0; lane < filled; ++lane) arg[lane] = p.rows;
      }
      for (int64_t piece = begin; piece < end; piece += kSlotsPerPiece) {
        const int64_t stop = end - piece > kSlotsPerPiece ? piece + kSlotsPerPiece : end;
        const bool is_first = piece == begin;
        Integer at[N];
        for (int v = 0; v < N; ++v) at[v] = Integer{} + static_cast<Count>(is_first ? 0 : -1);
        for (int64_t k = piece + is_first; k < stop; ++k)
          for (int v = 0; v < N; ++v) {
            const Vector x = tile.read(src + segments.row(k) * p.features, v);
            if constexpr (WithArg) at[v] = winner<Reduce>(x, best[v], Integer{} + static_cast<Count>(k - piece), at[v]);
            best[v] = winner<Reduce>(x, best[v], x, best[v]);
          }
        if constexpr (WithArg) {
          Count slots[N * lanes];
          __builtin_memcpy(slots, at, sizeof at);
          if (is_first && !segments.order)
            for (int lane = 0; lane < filled; ++lane) arg[lane] = piece + slots[lane];
          else
            for (int lane = 0; lane < filled; ++lane)
              if (slots[lane] >= 0) arg[lane] = segments.row(piece + slots[lane]);
        }
      }
      for (int v = 0; v < N; ++v) tile.write(out + s * p.features, v, best[v]);
    }
  });
}

template <class S>
static void broadcast_rows(const gg_segment_broadcast_params& p, int64_t first, int64_t last) {
  const S* src = static_cast<const S*>(p.src);
  const Segments segments(p);
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    for (int64_t s = first; s < last; ++s) {
      const int64_t begin = segments.begin(s), end = segments.end(s);
      Vector value[N];
      for (int v = 0; v < N; ++v) {
        value[v] = tile.read(src + s * p.features, v);
        if (p.reduce == GG_MEAN) value[v] = finished_lanes<GG_MEAN>(value[v], end - begin);
      }
      for (int64_t k = begin; k < end; ++k)
        for (int v = 0; v < N; ++v) tile.write(out + segments.row(k) * p.features, v, value[v]);
    }
  });
}

// The products of the rows before, then times those of the rows behind.
template <class S>
static void other_rows(const gg_segment_others_params& p, int64_t first, int64_t last) {
  const S* src = static_cast<const S*>(p.src);
  const Segments segments(p);
  S* out = static_cast<S*>(p.out);
  for_each_tile<S>(p.features, [&](auto tile) {
    using Vector = typename decltype(tile)::Vector;
    constexpr int N = decltype(tile)::vectors;
    for (int64_t s = first; s < last; ++s) {
      const int64_t begin = segments.begin(s), end = segments.end(s);
      Vector before[N], behind[N];
      for (int v = 0; v < N; ++v) before[v] = behind[v] = Vector{} + 1;
      for (int64_t k = begin; k < end; ++k) {
        const int64_t at = segments.row(k) * p.features;
        for (int v = 0; v < N; ++v) {
          tile.write(out + at, v, before[v]);
          before[v] = before[v] * tile.read(src + at, v);
        }
      }
      for (int64_t k = end; k-- > begin;) {
        const int64_t at = segments.row(k) * p.features;
        for (int v = 0; v < N; ++v) {
          tile.write(out + at, v, tile.read(out + at, v) * behind[v]);
          behind[v] = behind[v] * tile.read(src + at, v);
        }
      }
    }
  });
}

template <class S, class Params>
static void clear_rows_in_no_segment(const Params& p) {
  const Segments segments(p);
  S* out = static_cast<S*>(p.out);
  auto clear = [&](int64_t slot) {
    S* row = out + segments.row(slot) * p.features;
    for (int64_t f = 0; f < p.features; ++f) store_scalar(row + f, 0);
  };
  for (int64_t slot = 0; slot < segments.ptr[0]; ++slot) clear(slot);
  for (int64_t slot = segments.ptr[p.segments]; slot < p.rows; ++slot) clear(slot);
}

void segment_reduce(const gg_segment_reduce_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    with_reduce(p.reduce, [&](auto reduce) {
      using S = typename decltype(dtype)::type;
      constexpr int Reduce = decltype(reduce)::value;
      auto body = [&](int64_t first, int64_t last) {
        if constexpr (!kIsExtreme<Reduce>)
          fold_rows<S, Reduce>(p, first, last);
        else if (p.arg)
          extreme_rows<S, Reduce, true>(p, first, last);
        else
          extreme_rows<S, Reduce, false>(p, first, last);
      };
      for_rows(p.segments, 8 * p.features, threads, body);
    });
  });
}

void segment_broadcast(const gg_segment_broadcast_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    clear_rows_in_no_segment<S>(p);
    auto body = [&](int64_t first, int64_t last) { broadcast_rows<S>(p, first, last); };
    for_rows(p.segments, 8 * p.features, threads, body);
  });
}

void segment_others(const gg_segment_others_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    clear_rows_in_no_segment<S>(p);
    auto body = [&](int64_t first, int64_t last) { other_rows<S>(p, first, last); };
    for_rows(p.segments, 16 * p.features, threads, body);
  });
}

}  // namespace gg::GG_ISA
