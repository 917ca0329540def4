#include "linear.h"

#include "../common/cuda_kernels.h"
#include "../common/launch.cuh"
#include "../common/pack.cuh"

namespace gg::cuda {
namespace {

constexpr int kDepth = 32;  // how much of the sum over k is in shared memory at a time
constexpr int kAcross = 4;  // neighbouring outputs of a thread

// Copies a corner of a row-major array into shared memory, [Height][Width] with a pitch; outside the array is
// 0.
template <int Height, int Width, int Pitch, class S, class Real>
__device__ __forceinline__ void fill(Real (&tile)[Height][Pitch], const S* corner, int64_t stride, int64_t rows,
                                     int64_t columns, bool packed) {
  if (packed) {
    constexpr int N = kPack<S>, kPacks = Width / N;
#pragma unroll
    for (int k = threadIdx.x; k < Height * kPacks; k += kThreads) {
      const int row = k / kPacks, column = k % kPacks * N;
      Pack<S, N> value{};
      if (row < rows && column < columns) value = Pack<S, N>::load(corner + row * stride + column);
#pragma unroll
      for (int v = 0; v < N; ++v) tile[row][column + v] = value[v];
    }
  } else {
    for (int k = threadIdx.x; k < Height * Width; k += kThreads) {
      const int row = k / Width, column = k % Width;
      tile[row][column] = row < rows && column < columns ? load_scalar(corner + row * stride + column) : Real(0);
    }
  }
}

// One block a tile of kRows x kColumns outputs. Every output is one thread's chain over the whole of k.
template <class S, int kRows, int kColumns>
struct Linear {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kThreadsAcross = kColumns / kAcross;
  static constexpr int kThreadsDown = kThreads / kThreadsAcross;
  static constexpr int kDown = kRows / kThreadsDown;  // outputs of a thread, kThreadsDown rows apart
  static constexpr int kPitch = kDepth + 4;           // rows start in different banks, at multiples of 16 bytes
  gg_linear_params p;
  int64_t column_tiles;
  bool x_packed, weight_packed, out_packed;

  __device__ __forceinline__ void operator()(int64_t tile) const {
    alignas(16) __shared__ Real x[kRows][kPitch];
    alignas(16) __shared__ Real weight[kDepth][kColumns];
    const int64_t first_row = tile / column_tiles * kRows, first_column = tile % column_tiles * kColumns;
    const int across = threadIdx.x % kThreadsAcross * kAcross, down = threadIdx.x / kThreadsAcross;
    const int64_t column = first_column + across;

    Real sum[kDown][kAcross];
#pragma unroll
    for (int c = 0; c < kAcross; ++c) {
      const bool has_bias = p.bias && column + c < p.outer;
      const Real start = has_bias ? load_scalar(static_cast<const S*>(p.bias) + column + c) : Real(0);
#pragma unroll
      for (int r = 0; r < kDown; ++r) sum[r][c] = start;
    }
    auto step = [&](int k) {
#pragma unroll
      for (int r = 0; r < kDown; ++r)
#pragma unroll
        for (int c = 0; c < kAcross; ++c)
          sum[r][c] = multiply_add(x[r * kThreadsDown + down][k], weight[k][across + c], sum[r][c]);
    };
#pragma unroll 1
    for (int64_t first_k = 0; first_k < p.inner; first_k += kDepth) {
      const int64_t left = p.inner - first_k;
      __syncthreads();
      fill<kRows, kDepth>(x, static_cast<const S*>(p.x) + first_row * p.inner + first_k, p.inner, p.rows - first_row,
                          left, x_packed);
      fill<kDepth, kColumns>(weight, static_cast<const S*>(p.weight) + first_k * p.outer + first_column, p.outer, left,
                             p.outer - first_column, weight_packed);
      __syncthreads();
      if (left >= kDepth) {
#pragma unroll
        for (int k = 0; k < kDepth; ++k) step(k);
      } else {
#pragma unroll 4
        for (int k = 0; k < left; ++k) step(k);
      }
    }
#pragma unroll
    for (int r = 0; r < kDown; ++r) {
      const int64_t row = first_row + r * kThreadsDown + down;
      if (row >= p.rows || column >= p.outer) continue;
      S* out = static_cast<S*>(p.out) + row * p.outer + column;
      Pack<S, kAcross> result;
#pragma unroll
      for (int c = 0; c < kAcross; ++c) result.set(c, sum[r][c]);
      if (out_packed) {
        result.store(out);
      } else {
#pragma unroll
        for (int c = 0; c < kAcross; ++c)
          if (column + c < p.outer) out[c] = result.lane[c];
      }
    }
  }
};

template <class S, int kRows, int kColumns>
gg_status launch_linear(const gg_linear_params& p, void* stream) {
  const int64_t row_tiles = (p.rows + kRows - 1) / kRows, column_tiles = (p.outer + kColumns - 1) / kColumns;
  const Linear<S, kRows, kColumns> kernel{p, column_tiles, packable<S>(p.inner, p.x), packable<S>(p.outer, p.weight),
                                          packable<S, kAcross>(p.outer, p.out)};
  return launch_blocks("linear", row_tiles * column_tiles, stream, kernel);
}

}  // namespace

gg_status linear(const gg_linear_params& p, void* stream) {
  return with_dtype(p.dtype, [&](auto dtype) {
    using S = typename decltype(dtype)::type;
    if (p.outer <= 16) return launch_linear<S, 128, 16>(p, stream);
    if (p.outer <= 32) return launch_linear<S, 64, 32>(p, stream);
    return launch_linear<S, 64, 64>(p, stream);
  });
}

}  // namespace gg::cuda
