#include "segment_reduce.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

template <class S, int Reduce>
static void fold_into(S* __restrict out, const S* __restrict src, int64_t features) {
  for (int64_t f = 0; f < features; ++f) out[f] = fold<Reduce>(out[f], src[f]);
}

template <class S, int Reduce>
static void take_into(S* __restrict out, int64_t* __restrict arg, const S* __restrict src, int64_t features,
                      int64_t k) {
  for (int64_t f = 0; f < features; ++f) {
    const S x = src[f], best = out[f];
    out[f] = winner<Reduce>(x, best, x, best);
    arg[f] = winner<Reduce>(x, best, k, arg[f]);
  }
}

// What arrives at the rows [first, last): every thread reads all positions and takes its own, in their order.
template <class S, int Reduce, class Index>
static void scatter_to(const gg_scatter_params& p, int64_t first, int64_t last) {
  constexpr bool counted = Reduce == GG_MEAN || kIsExtreme<Reduce>;
  const S* src = static_cast<const S*>(p.src);
  const Index* position = static_cast<const Index*>(p.position);
  S* out = static_cast<S*>(p.out);
  const int64_t columns = p.columns, features = p.features, width = columns > 0 ? features / columns : 0;
  for (int64_t k = first * features; k < last * features; ++k) out[k] = Reduce == GG_MUL ? 1 : 0;
  if constexpr (counted)
    for (int64_t k = first * columns; k < last * columns; ++k) p.arrived[k] = 0;
  if constexpr (kIsExtreme<Reduce>)
    for (int64_t k = first * features; k < last * features; ++k) p.arg[k] = p.count;
  if constexpr (!counted)
    if (features == 1) {
      for (int64_t k = 0; k < p.count; ++k)
        if (const int64_t row = position[k]; row >= first && row < last) out[row] = fold<Reduce>(out[row], src[k]);
      return;
    }
  for (int64_t k = 0; k < p.count; ++k)
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t row = position[k * columns + c];
      if (row < first || row >= last) continue;
      const S* from = src + k * features + c * width;
      const int64_t at = row * features + c * width;
      bool is_first = false;
      if constexpr (counted) is_first = p.arrived[row * columns + c]++ == 0;
      if constexpr (kIsExtreme<Reduce>) {
        if (is_first)
          for (int64_t f = 0; f < width; ++f) {
            out[at + f] = from[f];
            p.arg[at + f] = k;
          }
        else
          take_into<S, Reduce>(out + at, p.arg + at, from, width, k);
      } else if (width == 1) {
        out[at] = fold<Reduce>(out[at], *from);
      } else {
        fold_into<S, Reduce>(out + at, from, width);
      }
    }
  if constexpr (Reduce == GG_MEAN)
    for (int64_t k = first * columns; k < last * columns; ++k)
      for (int64_t f = k * width; f < (k + 1) * width; ++f) out[f] = finished<Reduce, S>(out[f], p.arrived[k]);
}

void scatter(const gg_scatter_params& p, int threads) {
  with_wide_dtype(p.dtype, [&](auto dtype) {
    with_reduce(p.reduce, [&](auto reduce) {
      using S = typename decltype(dtype)::type;
      constexpr int Reduce = decltype(reduce)::value;
      auto body = [&](int64_t first, int64_t last) {
        p.index == GG_INT64 ? scatter_to<S, Reduce, int64_t>(p, first, last)
                            : scatter_to<S, Reduce, int32_t>(p, first, last);
      };
      const int64_t work = 2 * p.count * p.features;
      for_rows(p.rows, p.rows > 0 ? work / p.rows : 0, threads, body);
    });
  });
}

void gather(const gg_gather_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const S* src = static_cast<const S*>(p.src);
    const Indices position(p.position, p.index);
    S* out = static_cast<S*>(p.out);
    const int64_t width = p.columns > 0 ? p.features / p.columns : 0;
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k)
        for (int64_t c = 0; c < p.columns; ++c) {
          const S* from = src + position[k * p.columns + c] * p.features + c * width;
          S* to = out + k * p.features + c * width;
          if (width == 1)
            *to = *from;
          else
            for_each_tile<S>(width, [&](auto tile) {
              for (int v = 0; v < decltype(tile)::vectors; ++v) tile.write(to, v, tile.read(from, v));
            });
        }
    };
    for_rows(p.count, p.features, threads, body);
  });
}

static inline bool within(int64_t row, int64_t rows) {
  return static_cast<uint64_t>(row) < static_cast<uint64_t>(rows);
}

void pick(const gg_pick_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const S* src = static_cast<const S*>(p.src);
    S* out = static_cast<S*>(p.out);
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t s = first; s < last; ++s)
        for (int64_t f = 0; f < p.features; ++f) {
          const int64_t at = s * p.features + f, row = p.arg[at];
          out[at] = within(row, p.rows) ? src[row * p.features + f] : S{};
        }
    };
    for_rows(p.count, 2 * p.features, threads, body);
  });
}

void place_rows(const gg_place_rows_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const S* src = static_cast<const S*>(p.src);
    S* out = static_cast<S*>(p.out);
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t s = first; s < last; ++s)
        for (int64_t f = 0; f < p.features; ++f) {
          const int64_t at = s * p.features + f, row = p.arg[at];
          if (within(row, p.rows)) out[row * p.features + f] = src[at];
        }
    };
    for_rows(p.count, 2 * p.features, threads, body);
  });
}

// A counting sort. ptr[d] is where the next position of value d goes, which leaves it where value d + 1 begins.
template <class Index>
static void group(const gg_group_rows_params& p) {
  const Index* values = static_cast<const Index*>(p.values);
  Index* ptr = static_cast<Index*>(p.ptr);
  Index* order = static_cast<Index*>(p.order);
  for (int64_t d = 0; d <= p.size; ++d) ptr[d] = 0;
  for (int64_t k = 0; k < p.count; ++k) ++ptr[values[k] + 1];
  for (int64_t d = 0; d < p.size; ++d) ptr[d + 1] += ptr[d];
  for (int64_t k = 0; k < p.count; ++k) order[ptr[values[k]]++] = static_cast<Index>(k);
  for (int64_t d = p.size; d > 0; --d) ptr[d] = ptr[d - 1];
  ptr[0] = 0;
}

void group_rows(const gg_group_rows_params& p, int) { p.index == GG_INT64 ? group<int64_t>(p) : group<int32_t>(p); }

}  // namespace gg::GG_ISA
