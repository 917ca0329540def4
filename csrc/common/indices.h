// An index array whose width is a run-time fact: the branch is uniform, and it halves the number of kernels
// to compile.
#pragma once

#include "../graphgen.h"
#include "host_device.h"

namespace gg {

struct Indices {
  const void* at;
  bool wide;

  GG_MEMBER Indices(const void* array, int32_t index) : at(array), wide(index == GG_INT64) {}
  GG_MEMBER explicit operator bool() const { return at != nullptr; }
  GG_MEMBER int64_t operator[](int64_t k) const {
    return wide ? static_cast<const int64_t*>(at)[k] : static_cast<const int32_t*>(at)[k];
  }
};

}  // namespace gg
