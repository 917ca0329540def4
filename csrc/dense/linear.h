// One step of an output's sum. Contracted to a fused multiply-add wherever the target has one, and always
// added in the order of k: a row's bits do not depend on its place among other rows.
#pragma once

#include "../common/host_device.h"

namespace gg {

template <class Scalar, class Real>
GG_HD Real multiply_add(Scalar x, Real weight, Real sum) {
  return x * weight + sum;
}

}  // namespace gg
