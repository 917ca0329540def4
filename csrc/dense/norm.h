// Rows brought to mean 0 and variance 1.
#pragma once

#include "../common/host_device.h"

#include <math.h>
#include <stdint.h>

namespace gg {

// What a row less its mean is multiplied with, given the sum of the squares of that.
template <class Scalar>
GG_HD Scalar norm_scale(Scalar squares, int64_t width) {
  return Scalar(1) / sqrt(squares / static_cast<Scalar>(width) + Scalar(1e-5));
}

// The transpose of that: what a gradient of x^ gives to x, with the row's means of it and of it times x^.
template <class Real, class Scalar>
GG_HD Real norm_pull(Real grad, Real normal, Scalar mean, Scalar slope, Scalar scale) {
  return (grad - mean - normal * slope) * scale;
}

}  // namespace gg
