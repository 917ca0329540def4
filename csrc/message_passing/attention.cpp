#include "attention.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"
#include "block_dot.h"
#include "block_sum.h"

#include <limits>

namespace gg::GG_ISA {

// Attention of a few heads at a time, so that the logits of a block stay in the first cache.
constexpr int64_t kHeadsAtOnce = 8;

template <class S>
struct Attention {
  using Real = typename Accumulator<S>::Type;
  static constexpr Real kLowest = -std::numeric_limits<Real>::infinity();
  static constexpr int kRoom = Simd<Real>::lanes;  // read and written past the last logit

  const gg_neighbor_attention_params& p;
  const Indices rowptr{p.rowptr, p.index}, neighbor{p.neighbor, p.index};

  GG_MEMBER Real logit(int64_t i, int64_t j, int64_t e, int64_t head) const {
    const int64_t stride = p.heads * p.width, skip = head * p.width;
    const S* q = static_cast<const S*>(p.q) + i * stride + skip;
    const S* k = static_cast<const S*>(p.k) + j * stride + skip;
    typename Simd<S>::Vector sum{};
    for_each_tile<S>(p.width, [&](auto tile) {
      for (int v = 0; v < decltype(tile)::vectors; ++v) sum += tile.read(q, v) * tile.read(k, v);
    });
    const Real scaled = sum_of_lanes(sum) * static_cast<Real>(p.scale);
    return p.bias ? scaled + load_scalar(static_cast<const S*>(p.bias) + e * p.heads + head) : scaled;
  }

  // total[row] = the fold of step over the slots of a row, element by element of the heads; written like the sums of
  // a BlockSum, after every slot.
  template <class Step>
  GG_MEMBER void fold(const EdgeBlock& block, const Real* value, Real* total, int64_t heads, Real start,
                      Step&& step) const {
    for_each_tile<Real>(heads, [&](auto tile) {
      using Vector = typename decltype(tile)::Vector;
      using Integer = typename RealTraits<Vector>::Integer;
      static_assert(kHeadsAtOnce <= 4 * Simd<Real>::lanes, "one tile holds the heads");
      constexpr int N = decltype(tile)::vectors;
      Vector so_far[N];
      for (int v = 0; v < N; ++v) so_far[v] = Vector{} + start;
      for (int64_t s = 0; s < block.slots; ++s) {
        const Integer same = Integer{} + block.same_row[s];
        for (int v = 0; v < N; ++v) {
          so_far[v] = step(same ? so_far[v] : Vector{} + start, tile.read(value + s * heads, v));
          tile.write(total + block.row[s] * heads, v, so_far[v]);
        }
      }
    });
  }

  // out = step(value, total of the slot's row). Not in place: a load that follows a partial store nearby waits for it.
  template <class Step>
  GG_MEMBER void spread(const EdgeBlock& block, const Real* value, const Real* total, Real* out, int64_t heads,
                        Step&& step) const {
    for_each_tile<Real>(heads, [&](auto tile) {
      for (int64_t s = 0; s < block.slots; ++s)
        for (int v = 0; v < decltype(tile)::vectors; ++v)
          tile.write(out + s * heads, v,
                     step(tile.read(value + s * heads, v), tile.read(total + block.row[s] * heads, v)));
    });
  }

  // z may be read and written past its end.
  __attribute__((noinline)) void logits(const EdgeBlock& block, int64_t first_head, int64_t heads, Real* z) const {
    const int64_t skip = first_head * p.width, count = block.slots * heads;
    const BlockDot<S> dot{static_cast<const S*>(p.q) + skip, static_cast<const S*>(p.k) + skip, p.heads * p.width,
                          heads, p.width};
    dot.rows(block, z);
    const Real scale = static_cast<Real>(p.scale);
    for (int64_t at = 0; at < count; at += kRoom) store(z + at, load(z + at) * scale);
    if (!p.bias) return;
    const S* bias = static_cast<const S*>(p.bias) + block.edge[0] * p.heads + first_head;
    for (int64_t s = 0; s < block.slots; ++s)
      for (int64_t h = 0; h < heads; ++h) z[s * heads + h] += load_scalar(bias + s * p.heads + h);
  }

  void block_rows(const EdgeBlock& block, const int64_t* slot, int64_t first_head, int64_t heads) const {
    constexpr int64_t room = EdgeBlock::kSlots * kHeadsAtOnce + kRoom;
    Real z[room], term[room], total[EdgeBlock::kRows * kHeadsAtOnce + kRoom];
    logits(block, first_head, heads, z);
    fold(block, z, total, heads, kLowest, [](auto top, auto value) { return higher(top, value); });
    spread(block, z, total, term, heads, [](auto value, auto top) { return value - top; });
    for (int64_t k = 0; k < block.slots * heads; k += kRoom) store(term + k, exp_(load(term + k)));
    fold(block, term, total, heads, Real(0), [](auto sum, auto value) { return sum + value; });
    for (int64_t k = 0; k < block.rows * heads; k += kRoom) store(total + k, Real(1) / load(total + k));
    spread(block, term, total, z, heads, [](auto value, auto inverse) { return value * inverse; });
    const int64_t stride = p.heads * p.value_width, skip = first_head * p.value_width;
    const BlockSum<S, Real> sum{static_cast<const S*>(p.v) + skip,
                                z,
                                static_cast<S*>(p.out) + skip,
                                stride,
                                heads * p.value_width,
                                heads,
                                false};
    sum.rows(block, slot);
  }

  // A row of more slots than a block holds: nothing of it is stored, so its logits are computed for every use.
  void long_row(int64_t i, int64_t head) const {
    const int64_t begin = rowptr[i], end = rowptr[i + 1];
    Real top = kLowest, sum = 0;
    for (int64_t s = begin; s < end; ++s) top = higher(top, logit(i, neighbor[s], s, head));
    for (int64_t s = begin; s < end; ++s) sum += exp_(logit(i, neighbor[s], s, head) - top);
    const int64_t stride = p.heads * p.value_width, skip = head * p.value_width;
    for_each_tile<S>(p.value_width, [&](auto tile) {
      using Vector = typename decltype(tile)::Vector;
      constexpr int N = decltype(tile)::vectors;
      Vector value[N] = {};
      for (int64_t s = begin; s < end; ++s) {
        const Real weight = exp_(logit(i, neighbor[s], s, head) - top) / sum;
        const S* row = static_cast<const S*>(p.v) + neighbor[s] * stride + skip;
        for (int v = 0; v < N; ++v) value[v] += weight * tile.read(row, v);
      }
      for (int v = 0; v < N; ++v) tile.write(static_cast<S*>(p.out) + i * stride + skip, v, value[v]);
    });
  }

  void rows(int64_t first, int64_t last) const {
    int64_t slot[EdgeBlock::kSlots];
    for (int64_t s = 0; s < EdgeBlock::kSlots; ++s) slot[s] = s;
    for_each_block(
        {p.rowptr, p.neighbor, nullptr, p.index}, first, last,
        [&](const EdgeBlock& block) {
          for (int64_t head = 0; head < p.heads; head += kHeadsAtOnce)
            block_rows(block, slot, head, p.heads - head < kHeadsAtOnce ? p.heads - head : kHeadsAtOnce);
        },
        [&](int64_t row) {
          for (int64_t head = 0; head < p.heads; ++head) long_row(row, head);
        });
  }
};

void neighbor_attention(const gg_neighbor_attention_params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    const Attention<typename decltype(dtype)::type> attention{p};
    auto body = [&](int64_t first, int64_t last) { attention.rows(first, last); };
    for_rows(p.rows, p.heads * (8 * (p.width + p.value_width) + 32), threads, body);
  });
}

}  // namespace gg::GG_ISA
