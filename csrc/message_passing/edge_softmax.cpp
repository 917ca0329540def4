#include "edge_softmax.h"

#include "../common/dispatch.h"
#include "../common/indices.h"
#include "../common/rows.h"
#include "../common/simd.h"

#include <limits>
#include <type_traits>

namespace gg::GG_ISA {
namespace {

// The rows of a molecule have two edges, too few for a vector within a row. So blocks of whole rows are copied to
// buffers, where exponentials run over full vectors whatever the rows are, and where a row may read and write past its
// end: a row of up to kWindow edges then takes no branch.
constexpr int kElements = 1024;  // edges times heads of a block
constexpr int kHeads = 64;       // at most, in a block
constexpr int kWindow = 4;

// A matrix [edges, width] with room past its end, and before it a row for the edges that are not there.
template <class Real>
struct Buffer {
  alignas(GG_VECTOR_BYTES) Real whole[kHeads + kElements + kWindow * kHeads];

  explicit Buffer(Real absent) {
    for (int k = 0; k < kHeads; ++k) whole[k] = absent;
    for (int k = 0; k < kWindow * kHeads; ++k) at()[kElements + k] = 0;
  }
  GG_MEMBER Real* at() { return whole + kHeads; }
  GG_MEMBER const Real* at() const { return whole + kHeads; }
};

// Whole rows whose edges fit a buffer. start[row] is a row's first edge, counted from the block's first.
struct Block {
  int width, rows;
  int start[kElements + 1];
};

// Columns [head, head + width) of an [E, heads] array, whose type may be const.
template <class Entry>
struct Columns {
  using S = std::remove_const_t<Entry>;
  using Real = typename Accumulator<S>::Type;
  Entry* array;
  int64_t heads, head;
  int width;

  template <class Copy>
  void each_run(int64_t first, int edges, Copy&& copy) const {
    const bool whole = width == heads;
    const int runs = whole ? 1 : edges;
    for (int e = 0; e < runs; ++e) {
      Entry* const row = array + (first + e) * heads + head;
      for_each_tile<S>(whole ? edges * width : width, [&](auto tile) {
        constexpr int N = decltype(tile)::vectors;
        const Tile<Real, N, (decltype(tile)::partial)> wide{tile.first, tile.count};
        for (int v = 0; v < N; ++v) copy(tile, wide, row, e * width, v);
      });
    }
  }
  void read(int64_t first, int edges, Real* to) const {
    each_run(first, edges,
             [&](auto tile, auto wide, const S* row, int at, int v) { wide.write(to + at, v, tile.read(row, v)); });
  }
  void write(int64_t first, int edges, const Real* from) const {
    each_run(first, edges,
             [&](auto tile, auto wide, S* row, int at, int v) { tile.write(row, v, wide.read(from + at, v)); });
  }
};

// body(k) for the start k of every vector that holds some of the first `count` elements of a buffer.
template <class Real, class Body>
void each_vector(int count, Body&& body) {
  for (int k = 0; k < count; k += Simd<Real>::lanes) body(k);
}

template <class Real, int Width>
struct Lanes {
  typedef Real Vector __attribute__((vector_size(Width * sizeof(Real))));
  int head;

  static GG_MEMBER Vector load(const Real* at) {
    Vector value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
  }
  static GG_MEMBER void store(Real* at, Vector value) { __builtin_memcpy(at, &value, sizeof value); }
};

// Covers the heads, the widest vectors first.
template <class Real, int Width = Simd<Real>::lanes, class Body>
GG_HD void each_lanes(int width, Body&& body, int head = 0) {
  for (; head + Width <= width; head += Width) body(Lanes<Real, Width>{head});
  if constexpr (Width > 1) each_lanes<Real, Width / 2>(width, body, head);
}

// For every row: total = finish(add over its edges of `in`, in order); then out = map(edge of `from`, total). Edges
// past a row's last read as in's absent ones; what is written there is written over by the row that owns them.
template <class Real, class Add, class Finish, class Map>
GG_HD void each_row_of_heads(const Block& block, const Buffer<Real>& in, const Buffer<Real>& from, Buffer<Real>& out,
                             Add&& add, Finish&& finish, Map&& map) {
  each_lanes<Real>(block.width, [&](auto lanes) {
    using L = decltype(lanes);
    for (int row = 0; row < block.rows; ++row) {
      const int first = block.start[row], last = block.start[row + 1];
      auto total = L::load(in.whole);
      int edge = first;
      do {
        GG_UNROLL
        for (int u = 0; u < kWindow; ++u) {
          // By a mask: the compiler makes a branch of a choice, and a branch on a degree is often mispredicted.
          const int there = (edge + u) * block.width + lanes.head, inside = (edge + u - last) >> 31;
          total = add(total, L::load(in.at() + ((there & inside) | (-kHeads & ~inside))));
        }
      } while ((edge += kWindow) < last);
      total = finish(total);
      edge = first;
      do {
        GG_UNROLL
        for (int u = 0; u < kWindow; ++u) {
          const int there = (edge + u) * block.width + lanes.head;
          L::store(out.at() + there, map(L::load(from.at() + there), total));
        }
      } while ((edge += kWindow) < last);
    }
  });
}

// The same for a single head, with a window in one vector.
template <class Real, class Add, class Finish, class Map>
GG_HD void each_row_of_one(const Block& block, const Buffer<Real>& in, const Buffer<Real>& from, Buffer<Real>& out,
                           Add&& add, Finish&& finish, Map&& map) {
  using Window = Lanes<Real, kWindow>;
  typedef typename RealTraits<Real>::Integer Integer __attribute__((vector_size(kWindow * sizeof(Real))));
  const typename Window::Vector absent = Window::load(in.whole);
  const Integer lane = {0, 1, 2, 3};
  static_assert(kWindow == 4, "lane counts to four");
  for (int row = 0; row < block.rows; ++row) {
    const int first = block.start[row], last = block.start[row + 1];
    Real total = in.whole[0];
    int edge = first;
    do {
      const auto value = lane < Integer{} + (last - edge) ? Window::load(in.at() + edge) : absent;
      GG_UNROLL
      for (int u = 0; u < kWindow; ++u) total = add(total, static_cast<Real>(value[u]));
    } while ((edge += kWindow) < last);
    const typename Window::Vector spread = typename Window::Vector{} + finish(total);
    edge = first;
    do Window::store(out.at() + edge, map(Window::load(from.at() + edge), spread));
    while ((edge += kWindow) < last);
  }
}

template <class Real, class... Functions>
void each_row(const Block& block, const Buffer<Real>& in, const Buffer<Real>& from, Buffer<Real>& out,
              Functions&&... functions) {
  if (block.width == 1) return each_row_of_one(block, in, from, out, functions...);
  each_row_of_heads(block, in, from, out, functions...);
}

template <class Real>
void exponentials(Buffer<Real>& buffer, int count) {
  each_vector<Real>(count, [&](int k) { store(buffer.at() + k, exp_(load(buffer.at() + k))); });
}
template <class Real>
void multiply(const Buffer<Real>& a, const Buffer<Real>& b, Buffer<Real>& out, int count) {
  each_vector<Real>(count, [&](int k) { store(out.at() + k, load(a.at() + k) * load(b.at() + k)); });
}

// body(edge, head, element) for the elements of a buffer that holds `edges` edges.
template <class Body>
void each_element(int edges, int width, Body&& body) {
  for (int e = 0; e < edges; ++e)
    for (int h = 0; h < width; ++h) body(h, e * width + h);
}

template <class S>
struct Softmax {
  using Real = typename Accumulator<S>::Type;
  static constexpr Real lowest = -std::numeric_limits<Real>::infinity();
  Columns<const S> logits;
  Columns<S> out;
  Buffer<Real> a{lowest}, b{Real(0)};

  Softmax(const gg_edge_softmax_params& p, int64_t head, int width)
      : logits{static_cast<const S*>(p.logits), p.heads, head, width},
        out{static_cast<S*>(p.out), p.heads, head, width} {}

  void short_rows(const Block& block, int64_t first) {
    const int edges = block.start[block.rows], count = edges * block.width;
    const auto same = [](auto total) { return total; };
    const auto inverse = [](auto total) { return Real(1) / total; };
    const auto highest = [](auto total, auto value) { return higher(total, value); };
    logits.read(first, edges, a.at());
    each_row(block, a, a, b, highest, same, [](auto value, auto top) { return value - top; });
    exponentials(b, count);
    each_row(
        block, b, b, a, [](auto sum, auto value) { return sum + value; }, inverse,
        [](auto value, auto scale) { return value * scale; });
    out.write(first, edges, a.at());
  }

  // A row that no buffer holds, in pieces.
  void long_row(int64_t first, int64_t last) {
    const int width = out.width, most = kElements / width;
    Real top[kHeads], sum[kHeads];
    for (int h = 0; h < width; ++h) top[h] = lowest, sum[h] = 0;
    const auto each_piece = [&](auto&& body) {
      for (int64_t edge = first; edge < last; edge += most) {
        const int edges = last - edge < most ? static_cast<int>(last - edge) : most;
        logits.read(edge, edges, a.at());
        body(edge, edges);
      }
    };
    const auto terms = [&](int edges) {
      each_element(edges, width, [&](int h, int k) { b.at()[k] = a.at()[k] - top[h]; });
      exponentials(b, edges * width);
    };
    each_piece([&](int64_t, int edges) {
      each_element(edges, width, [&](int h, int k) { top[h] = higher(top[h], a.at()[k]); });
    });
    each_piece([&](int64_t, int edges) {
      terms(edges);
      each_element(edges, width, [&](int h, int k) { sum[h] += b.at()[k]; });
    });
    for (int h = 0; h < width; ++h) sum[h] = Real(1) / sum[h];
    each_piece([&](int64_t edge, int edges) {
      terms(edges);
      each_element(edges, width, [&](int h, int k) { b.at()[k] *= sum[h]; });
      out.write(edge, edges, b.at());
    });
  }
};

template <class S>
struct Slope {
  using Real = typename Accumulator<S>::Type;
  Columns<const S> probability, direction;
  Columns<S> out;
  Buffer<Real> a{Real(0)}, b{Real(0)}, c{Real(0)}, d{Real(0)};

  Slope(const gg_edge_softmax_slope_params& p, int64_t head, int width)
      : probability{static_cast<const S*>(p.probability), p.heads, head, width},
        direction{static_cast<const S*>(p.direction), p.heads, head, width},
        out{static_cast<S*>(p.out), p.heads, head, width} {}

  // Products are stored before they are added, so that none is fused into its sum in one width and not in another.
  void read(int64_t first, int edges) {
    probability.read(first, edges, a.at());
    direction.read(first, edges, b.at());
    multiply(a, b, c, edges * out.width);
  }

  void short_rows(const Block& block, int64_t first) {
    const int edges = block.start[block.rows];
    read(first, edges);
    each_row(
        block, c, b, d, [](auto sum, auto value) { return sum + value; }, [](auto sum) { return sum; },
        [](auto value, auto mean) { return value - mean; });
    multiply(a, d, c, edges * block.width);
    out.write(first, edges, c.at());
  }

  void long_row(int64_t first, int64_t last) {
    const int width = out.width, most = kElements / width;
    Real mean[kHeads] = {};
    const auto each_piece = [&](auto&& body) {
      for (int64_t edge = first; edge < last; edge += most) {
        const int edges = last - edge < most ? static_cast<int>(last - edge) : most;
        read(edge, edges);
        body(edge, edges);
      }
    };
    each_piece([&](int64_t, int edges) { each_element(edges, width, [&](int h, int k) { mean[h] += c.at()[k]; }); });
    each_piece([&](int64_t edge, int edges) {
      each_element(edges, width, [&](int h, int k) { d.at()[k] = b.at()[k] - mean[h]; });
      multiply(a, d, c, edges * width);
      out.write(edge, edges, c.at());
    });
  }
};

template <class Kernel, class Params>
void run_rows(const Params& p, int64_t first_row, int64_t last_row) {
  const Indices rowptr{p.rowptr, p.index};
  for (int64_t head = 0; head < p.heads; head += kHeads) {
    Block block;
    block.width = p.heads - head < kHeads ? static_cast<int>(p.heads - head) : kHeads;
    Kernel kernel(p, head, block.width);
    const int most = kElements / block.width;
    for (int64_t row = first_row; row < last_row; row += block.rows) {
      const int64_t first = rowptr[row];
      int64_t rows = last_row - row < kElements ? last_row - row : kElements;
      while (rows > 1 && rowptr[row + rows] - first > most) rows -= (rows + 3) / 4;
      block.rows = static_cast<int>(rows);
      if (rowptr[row + rows] - first > most) {
        kernel.long_row(first, rowptr[row + rows]);
      } else {
        for (int k = 0; k <= block.rows; ++k) block.start[k] = static_cast<int>(rowptr[row + k] - first);
        kernel.short_rows(block, first);
      }
    }
  }
}

template <template <class> class Kernel, class Params>
void each_range(const Params& p, int threads) {
  with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    auto body = [&](int64_t first, int64_t last) { run_rows<Kernel<S>>(p, first, last); };
    for_rows(p.rows, 32 * p.heads, threads, body);
  });
}

}  // namespace

void edge_softmax(const gg_edge_softmax_params& p, int threads) { each_range<Softmax>(p, threads); }

void edge_softmax_slope(const gg_edge_softmax_slope_params& p, int threads) { each_range<Slope>(p, threads); }

}  // namespace gg::GG_ISA
