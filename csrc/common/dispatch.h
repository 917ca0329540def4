// From the run-time codes of the C interface to types and constants, once for CPU and CUDA.
#pragma once

#include "../graphgen.h"
#include "bfloat16.h"
#include "math.h"

namespace gg {

template <class T>
struct Type {
  using type = T;
};
template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class Body>
static inline auto with_dtype(int dtype, Body&& body) {
  if (dtype == GG_FLOAT32) return body(Type<float>{});
  if (dtype == GG_FLOAT64) return body(Type<double>{});
  return body(Type<bfloat16>{});
}

template <class Body>
static inline auto with_order(int order, Body&& body) {
  if (order == 0) return body(Constant<0>{});
  if (order == 1) return body(Constant<1>{});
  if (order == 2) return body(Constant<2>{});
  return body(Constant<3>{});
}

template <class Body>
static inline auto with_activation(int activation, Body&& body) {
  if (activation == GG_SILU) return body(Constant<GG_SILU>{});
  if (activation == GG_TANH) return body(Constant<GG_TANH>{});
  if (activation == GG_RELU) return body(Constant<GG_RELU>{});
  return body(Constant<GG_SOFTPLUS>{});
}

}  // namespace gg
