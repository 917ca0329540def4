// Products of matrices by tiles in shared memory.
#pragma once

#include "linear.h"

#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {

constexpr int kDepth = 32;          // how much of the sum over k is in shared memory at a time
constexpr int kAcross = 4;          // neighbouring columns of a thread
constexpr int kPitch = kDepth + 4;  // rows start in different banks, at multiples of 16 bytes

// Row-major.
template <class S>
struct Matrix {
  const S* at;
  int64_t rows, columns;
  bool packed;

  Matrix(const void* array, int64_t rows, int64_t columns)
      : at(static_cast<const S*>(array)), rows(rows), columns(columns), packed(packable<S>(columns, array)) {}
};

// What becomes of x on its way into shared memory, by its row in the tile.
struct Unchanged {
  template <class Real>
  __device__ __forceinline__ Real operator()(Real value, int) const {
    return value;
  }
};

// Copies a corner of a matrix into shared memory, [Height][Width] with a pitch; outside the matrix is 0.
template <int Height, int Width, int Pitch, class S, class Real, class Change>
__device__ __forceinline__ void fill(Real (&tile)[Height][Pitch], const Matrix<S>& from, int64_t first_row,
                                     int64_t first_column, const Change& change) {
  const S* corner = from.at + first_row * from.columns + first_column;
  const int64_t rows = from.rows - first_row, columns = from.columns - first_column;
  if (from.packed) {
    constexpr int N = kPack<S>, kPacks = Width / N;
#pragma unroll
    for (int k = threadIdx.x; k < Height * kPacks; k += kThreads) {
      const int row = k / kPacks, column = k % kPacks * N;
      const bool inside = row < rows && column < columns;
      Pack<S, N> value{};
      if (inside) value = Pack<S, N>::load(corner + row * from.columns + column);
#pragma unroll
      for (int v = 0; v < N; ++v) tile[row][column + v] = inside ? change(value[v], row) : Real(0);
    }
  } else {
    for (int k = threadIdx.x; k < Height * Width; k += kThreads) {
      const int row = k / Width, column = k % Width;
      const bool inside = row < rows && column < columns;
      tile[row][column] = inside ? change(load_scalar(corner + row * from.columns + column), row) : Real(0);
    }
  }
}

// Of a row that starts at `from`, a thread's columns: those past the `left` there are read as 0 and not written.
template <class S, class Real>
__device__ __forceinline__ void read_across(const S* from, int64_t left, bool packed, Real (&value)[kAcross]) {
  Pack<S, kAcross> pack{};
  if (packed) {
    if (left > 0) pack = Pack<S, kAcross>::load(from);
  } else {
#pragma unroll
    for (int c = 0; c < kAcross; ++c)
      if (c < left) pack.lane[c] = from[c];
  }
#pragma unroll
  for (int c = 0; c < kAcross; ++c) value[c] = pack[c];
}
template <class S, class Real>
__device__ __forceinline__ void write_across(S* to, int64_t left, bool packed, const Real (&value)[kAcross]) {
  Pack<S, kAcross> pack;
#pragma unroll
  for (int c = 0; c < kAcross; ++c) pack.set(c, value[c]);
  if (packed) {
    if (left > 0) pack.store(to);
  } else {
#pragma unroll
    for (int c = 0; c < kAcross; ++c)
      if (c < left) to[c] = pack.lane[c];
  }
}

// A tile of Rows x Columns sums that a block shares, each one thread's chain over the whole of k.
template <class Scalar, int Rows, int Columns>
struct ProductTile {
  using S = Scalar;
  using Real = typename Accumulator<S>::Type;
  static constexpr int kRows = Rows, kColumns = Columns;
  static constexpr int kThreadsAcross = kColumns / kAcross;
  static constexpr int kThreadsDown = kThreads / kThreadsAcross;
  static constexpr int kDown = kRows / kThreadsDown;  // rows of a thread, kThreadsDown apart
  static_assert(kDown * kThreadsDown == kRows && kThreadsAcross <= kWarp, "threads share a tile equally");
  using Sums = Real[kDown][kAcross];
  using Right = Real[kDepth][kColumns];
  struct Operands {
    alignas(16) Real x[kRows][kPitch];
    alignas(16) Right weight;
  };

  static __device__ __forceinline__ int row(int r) { return r * kThreadsDown + threadIdx.x / kThreadsAcross; }
  static __device__ __forceinline__ int column() { return threadIdx.x % kThreadsAcross * kAcross; }

  // sum += x weight, of which only `left` of the k are there.
  static __device__ __forceinline__ void multiply(const Real (&x)[kRows][kPitch], const Right& weight, int64_t left,
                                                  Sums& sum) {
    auto step = [&](int k) {
#pragma unroll
      for (int r = 0; r < kDown; ++r)
#pragma unroll
        for (int c = 0; c < kAcross; ++c) sum[r][c] = multiply_add(x[row(r)][k], weight[k][column() + c], sum[r][c]);
    };
    if (left >= kDepth) {
#pragma unroll
      for (int k = 0; k < kDepth; ++k) step(k);
    } else {
#pragma unroll 4
      for (int k = 0; k < left; ++k) step(k);
    }
  }

  // sum += change(x) weight at this place of the product, where all threads have to be.
  template <class Change>
  static __device__ __forceinline__ void add(Operands& operands, const Matrix<S>& x, const Change& change,
                                             const Matrix<S>& weight, int64_t first_row, int64_t first_column,
                                             Sums& sum) {
#pragma unroll 1
    for (int64_t k = 0; k < x.columns; k += kDepth) {
      __syncthreads();
      fill<kRows, kDepth>(operands.x, x, first_row, k, change);
      fill<kDepth, kColumns>(operands.weight, weight, k, first_column, Unchanged{});
      __syncthreads();
      multiply(operands.x, operands.weight, x.columns - k, sum);
    }
  }
};

// body(a tile that suits so many columns).
template <class S, class Body>
static inline gg_status with_product_tile(int64_t columns, Body&& body) {
  if (columns <= 16) return body(Type<ProductTile<S, 128, 16>>{});
  if (columns <= 32) return body(Type<ProductTile<S, 64, 32>>{});
  return body(Type<ProductTile<S, 64, 64>>{});
}

static inline int64_t tiles_of(int64_t count, int size) { return (count + size - 1) / size; }

}  // namespace gg::cuda
