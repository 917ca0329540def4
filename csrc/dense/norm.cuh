// Rows brought to mean 0 and variance 1 on their way into a product.
#pragma once

#include "norm.h"
#include "product.cuh"

namespace gg::cuda {

// Of the rows of a tile.
template <class Real, int Rows>
struct Norms {
  static constexpr int kMembers = 8;  // threads a row
  static_assert(Rows % (kThreads / kMembers) == 0, "every thread has as many rows");
  Real mean[Rows], scale[Rows];

  // By all threads of a block together. The order of the sums depends on the width alone.
  template <class S>
  __device__ __forceinline__ void find(const Matrix<S>& x, int64_t first_row) {
    const Group group{3};
    static_assert(kMembers == 1 << 3, "a group is a row's threads");
    const int64_t left = x.rows - first_row;
#pragma unroll 1
    for (int r = threadIdx.x / kMembers; r < Rows; r += kThreads / kMembers) {
      const S* row = x.at + (first_row + r) * x.columns;
      const int64_t width = r < left ? x.columns : 0;
      Real sum = 0, squares = 0;
      for (int64_t f = group.lane(); f < width; f += kMembers) sum += load_scalar(row + f);
      const Real middle = total(group, sum) / static_cast<Real>(x.columns);
      for (int64_t f = group.lane(); f < width; f += kMembers) {
        const Real off = load_scalar(row + f) - middle;
        squares += off * off;
      }
      squares = total(group, squares);
      if (group.lane() == 0) {
        mean[r] = middle;
        scale[r] = norm_scale(squares, x.columns);
      }
    }
  }

  __device__ __forceinline__ Real operator()(Real value, int row) const { return (value - mean[row]) * scale[row]; }

 private:
  static __device__ __forceinline__ Real total(const Group& group, Real sum) {
#pragma unroll
    for (int distance = kMembers / 2; distance > 0; distance /= 2) sum += group.exchange(sum, distance);
    return sum;
  }
};

// gg_norm_linear_pull, with skip [rows, inner] added to to_x unless it is null.
gg_status norm_pull(const char* operation, const gg_norm_linear_pull_params& p, const void* skip, void* stream);

}  // namespace gg::cuda
