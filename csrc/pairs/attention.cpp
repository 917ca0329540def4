#include "../common/dispatch.h"
#include "../common/row_block.h"
#include "../common/rows.h"
#include "cursor.h"
#include "tile.h"

#include <math.h>

namespace gg::GG_ISA {

constexpr int kMost = (GG_PAIR_ATOMS + 31) / 32 * 32;

// One head of one molecule: what an atom sees of the others.
template <class S>
struct Head {
  using Vector = typename Simd<S>::Vector;
  static constexpr int lanes = Simd<S>::lanes;

  const S *query, *key, *value;  // of the molecule's first atom, rows `stride` apart
  const S* bias_gate;            // of the molecule's first pair and this head, rows 2 `heads` apart
  int64_t n, width, stride, heads;
  S root;
  int64_t columns;                                      // n, padded
  alignas(64) S keys[GG_HEAD_WIDTH * kMost];            // transposed: column j is that of atom j
  alignas(64) S share[kMost], gate[kMost], raw[kMost];  // softmax, sigmoid of the gate, L_ij; 0 at i and past n

  void transpose(const S* rows, S* out) const {
    for (int64_t f = 0; f < width; ++f) {
      for (int64_t j = 0; j < n; ++j) out[f * columns + j] = rows[j * stride + f];
      for (int64_t j = n; j < columns; ++j) out[f * columns + j] = 0;
    }
  }

  // out[j] = <x, column j>.
  void dots(const S* x, const S* transposed, S* out) const {
    for (int64_t c = 0; c < columns; c += lanes) {
      Vector sum{};
      for (int64_t f = 0; f < width; ++f) sum = x[f] * load(transposed + f * columns + c) + sum;
      store(out + c, sum);
    }
  }

  void start() {
    columns = padded<S>(n);
    root = S(1) / sqrt(static_cast<S>(width));
    transpose(key, keys);
  }

  void look(int64_t i) {
    const S never = -std::numeric_limits<S>::infinity();
    dots(query + i * stride, keys, raw);
    for (int64_t c = 0; c < columns; c += lanes) store(raw + c, load(raw + c) * root);
    for (int64_t j = 0; j < columns; ++j) share[j] = never, gate[j] = 0;
    for_each_other(i, n, [&](int64_t j, int64_t place) {
      const S* own = bias_gate + place * 2 * heads;
      raw[j] += own[0];
      share[j] = raw[j];
      gate[j] = own[heads];
    });
    const S sum = exponentials(share, columns);
    for (int64_t c = 0; c < columns; c += lanes) {
      store(share + c, load(share + c) / sum);
      store(gate + c, sigmoid(sigmoid_floor(load(gate + c))));
    }
  }
};

template <class S>
static Head<S>& at_head(Head<S>& head, const gg_pair_attention_params& p, int64_t g, int64_t h) {
  const int64_t* ptr = static_cast<const int64_t*>(p.pairs.ptr);
  const int64_t* pair_ptr = static_cast<const int64_t*>(p.pairs.pair_ptr);
  head.n = ptr[g + 1] - ptr[g];
  head.width = p.width / p.heads;
  head.stride = 3 * p.width;
  head.heads = p.heads;
  head.query = static_cast<const S*>(p.query_key_value) + ptr[g] * head.stride + h * head.width;
  head.key = head.query + p.width;
  head.value = head.key + p.width;
  head.bias_gate = static_cast<const S*>(p.bias_gate) + pair_ptr[g] * 2 * p.heads + h;
  head.start();
  return head;
}

template <class S>
static void forward(const gg_pair_attention_params& p, int64_t g) {
  const int64_t begin = static_cast<const int64_t*>(p.pairs.ptr)[g];
  S* logits = static_cast<S*>(p.logits) + static_cast<const int64_t*>(p.pairs.pair_ptr)[g] * p.heads;
  Head<S> head;
  for (int64_t h = 0; h < p.heads; ++h) {
    at_head(head, p, g, h);
    const int64_t n = head.n;
    S* out = static_cast<S*>(p.out) + begin * p.width + h * head.width;
    if (n == 1)
      for (int64_t f = 0; f < head.width; ++f) out[f] = 0;
    for (int64_t i = 0; i < n && n > 1; ++i, out += p.width) {
      head.look(i);
      for_each_other(i, n, [&](int64_t j, int64_t place) {
        S* sum = logits + place * p.heads + h;
        *sum = i < j ? head.raw[j] : *sum + head.raw[j];
      });
      for_each_tile<S>(head.width, [&](auto tile) {
        constexpr int N = decltype(tile)::vectors;
        typename Simd<S>::Vector sum[N] = {};
        for (int64_t j = 0; j < n; ++j) {
          const S weight = head.share[j] * head.gate[j];
          for (int v = 0; v < N; ++v) sum[v] = weight * tile.read(head.value + j * head.stride, v) + sum[v];
        }
        for (int v = 0; v < N; ++v) tile.write(out, v, sum[v]);
      });
    }
  }
}

template <class S>
static void pull(const gg_pair_attention_pull_params& p, int64_t g) {
  using Vector = typename Simd<S>::Vector;
  constexpr int lanes = Simd<S>::lanes;
  const gg_pair_attention_params& of = p.of;
  const int64_t begin = static_cast<const int64_t*>(of.pairs.ptr)[g];
  const int64_t pair_begin = static_cast<const int64_t*>(of.pairs.pair_ptr)[g];
  const S* logits_grad = static_cast<const S*>(p.logits_grad) + pair_begin * of.heads;
  S* to_bias_gate = static_cast<S*>(p.to_bias_gate) + pair_begin * 2 * of.heads;
  Head<S> head;
  alignas(64) S values[GG_HEAD_WIDTH * kMost], to_gate[kMost], slope[kMost * kMost], weight[kMost * kMost];
  const int64_t n = static_cast<const int64_t*>(of.pairs.ptr)[g + 1] - begin;
  S* to_rows = static_cast<S*>(p.to_query_key_value) + begin * 3 * of.width;
  for (int64_t k = 0; k < n * 3 * of.width; ++k) to_rows[k] = 0;
  for (int64_t k = 0; k < n * (n - 1) * of.heads; ++k) to_bias_gate[k] = 0;
  for (int64_t h = 0; h < of.heads && n > 1; ++h) {
    at_head(head, of, g, h);
    head.transpose(head.value, values);
    S* to_query = to_rows + h * head.width;
    S* to_key = to_query + of.width;
    S* to_value = to_key + of.width;
    for (int64_t i = 0; i < n; ++i) {
      const S* grad = static_cast<const S*>(p.grad) + (begin + i) * of.width + h * head.width;
      head.look(i);
      S* along = slope + i * head.columns;
      head.dots(grad, values, along);
      Vector sum{};
      for (int64_t c = 0; c < head.columns; c += lanes) {
        const Vector share = load(head.share + c), gate = load(head.gate + c), dot = load(along + c);
        store(weight + i * head.columns + c, share * gate);
        sum += share * gate * dot;
        store(to_gate + c, share * dot * gate * (S(1) - gate));
      }
      const S mean = sum_of_lanes(sum);
      for (int64_t c = 0; c < head.columns; c += lanes)
        store(along + c, load(head.share + c) * (load(head.gate + c) * load(along + c) - mean));
      for_each_other(i, n, [&](int64_t j, int64_t place) {
        along[j] += logits_grad[place * of.heads + h];
        S* own = to_bias_gate + place * 2 * of.heads + h;
        own[0] += along[j];
        own[of.heads] += to_gate[j];
      });
    }
    const S* grad = static_cast<const S*>(p.grad) + begin * of.width + h * head.width;
    const auto add = [&](S* out, const S* x, int64_t x_stride, S factor, const S* matrix, int64_t i_stride,
                         int64_t j_stride) {
      for (int64_t i = 0; i < n; ++i)
        for_each_tile<S>(head.width, [&](auto tile) {
          constexpr int N = decltype(tile)::vectors;
          Vector sum[N] = {};
          for (int64_t j = 0; j < n; ++j) {
            const S one = matrix[i * i_stride + j * j_stride];
            for (int v = 0; v < N; ++v) sum[v] = one * tile.read(x + j * x_stride, v) + sum[v];
          }
          for (int v = 0; v < N; ++v) tile.write(out + i * head.stride, v, sum[v] * factor);
        });
    };
    add(to_query, head.key, head.stride, head.root, slope, head.columns, 1);
    add(to_key, head.query, head.stride, head.root, slope, 1, head.columns);
    add(to_value, grad, of.width, S(1), weight, 1, head.columns);
  }
}

template <class Body>
static void for_molecules(const gg_pair_attention_params& p, int64_t factor, int threads, Body&& one) {
  const int64_t* ptr = static_cast<const int64_t*>(p.pairs.ptr);
  const int64_t molecules = p.pairs.molecules;
  if (molecules == 0 || p.heads == 0) return;
  const int64_t atoms = (ptr[molecules] - ptr[0]) / molecules + 1;
  auto body = [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g) one(g);
  };
  for_rows(molecules, factor * atoms * atoms * p.width / 4, threads, body);
}

void pair_attention(const gg_pair_attention_params& p, int threads) {
  with_float_or_double(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    for_molecules(p, 1, threads, [&](int64_t g) { forward<S>(p, g); });
  });
}

void pair_attention_pull(const gg_pair_attention_pull_params& p, int threads) {
  with_float_or_double(p.of.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    for_molecules(p.of, 3, threads, [&](int64_t g) { pull<S>(p, g); });
  });
}

}  // namespace gg::GG_ISA
