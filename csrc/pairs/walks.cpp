#include "../common/dispatch.h"
#include "../common/row_block.h"
#include "../common/rows.h"
#include "cursor.h"
#include "walks.h"

namespace gg::GG_ISA {

template <class S>
static void walks(const gg_pair_walks_params& p, int64_t g) {
  using Vector = typename Simd<S>::Vector;
  constexpr int lanes = Simd<S>::lanes;
  constexpr int kMost = (GG_PAIR_ATOMS + 31) / 32 * 32;
  const int64_t begin = static_cast<const int64_t*>(p.pairs.ptr)[g];
  const int64_t pair_begin = static_cast<const int64_t*>(p.pairs.pair_ptr)[g];
  const int64_t n = static_cast<const int64_t*>(p.pairs.ptr)[g + 1] - begin, columns = padded<S>(n);
  const S* bonded = static_cast<const S*>(p.bonded) + pair_begin;
  alignas(64) S step[kMost * kMost], root[kMost], now[kMost], after[kMost];
  for (int64_t i = 0; i < n; ++i) {
    S degree = 0;
    for_each_other(i, n, [&](int64_t, int64_t place) { degree += bonded[place]; });
    root[i] = walk_root(degree);
  }
  for (int64_t k = 0; k < n * columns; ++k) step[k] = 0;
  for (int64_t i = 0; i < n; ++i)
    for_each_other(
        i, n, [&](int64_t j, int64_t place) { step[i * columns + j] = walk_step(bonded[place], root[i], root[j]); });
  for (int64_t i = 0; i < n; ++i) {
    S* returns = static_cast<S*>(p.returns) + (begin + i) * p.length;
    for (int64_t c = 0; c < columns; ++c) now[c] = step[i * columns + c];
    for (int64_t k = 0; k < p.length; ++k) {
      if (k > 0) {
        for (int64_t c = 0; c < columns; c += lanes) {
          Vector sum{};
          for (int64_t j = 0; j < n; ++j) sum = now[j] * load(step + j * columns + c) + sum;
          store(after + c, sum);
        }
        __builtin_memcpy(now, after, columns * sizeof(S));
      }
      returns[k] = now[i];
      S* row = static_cast<S*>(p.walks) + (pair_begin + i * (2 * n - i - 1) / 2) * p.length + k;
      for (int64_t j = i + 1; j < n; ++j, row += p.length) *row = now[j];
    }
  }
}

void pair_walks(const gg_pair_walks_params& p, int threads) {
  with_float_or_double(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    const int64_t* ptr = static_cast<const int64_t*>(p.pairs.ptr);
    const int64_t molecules = p.pairs.molecules;
    if (molecules == 0) return;
    const int64_t atoms = (ptr[molecules] - ptr[0]) / molecules + 1;
    auto body = [&](int64_t first, int64_t last) {
      for (int64_t g = first; g < last; ++g) walks<S>(p, g);
    };
    for_rows(molecules, atoms * atoms * atoms * p.length / 4, threads, body);
  });
}

}  // namespace gg::GG_ISA
