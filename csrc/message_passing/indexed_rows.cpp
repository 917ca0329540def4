#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

namespace gg::GG_ISA {

void gather(const gg_gather_params& p, int threads) {
  with_any_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const S* src = static_cast<const S*>(p.src);
    const Indices position(p.position, p.index);
    S* out = static_cast<S*>(p.out);
    auto body = [&](int64_t first, int64_t last) {
      for_each_tile<S>(p.features, [&](auto tile) {
        for (int64_t k = first; k < last; ++k)
          for (int v = 0; v < decltype(tile)::vectors; ++v)
            tile.write(out + k * p.features, v, tile.read(src + position[k] * p.features, v));
      });
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
