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

// The same without bfloat16, which the engine has refused.
template <class Body>
static inline auto with_float_or_double(int dtype, Body&& body) {
  if (dtype == GG_FLOAT32) return body(Type<float>{});
  return body(Type<double>{});
}

// The same, integers too: for the operations on rows.
template <class Body>
static inline auto with_any_dtype(int dtype, Body&& body) {
  if (dtype == GG_DATA_INT32) return body(Type<int32_t>{});
  if (dtype == GG_DATA_INT64) return body(Type<int64_t>{});
  return with_dtype(dtype, body);
}

// The same without bfloat16: where partial results wait in the array of the result.
template <class Body>
static inline auto with_wide_dtype(int dtype, Body&& body) {
  if (dtype == GG_FLOAT32) return body(Type<float>{});
  if (dtype == GG_FLOAT64) return body(Type<double>{});
  if (dtype == GG_DATA_INT32) return body(Type<int32_t>{});
  return body(Type<int64_t>{});
}

template <class Body>
static inline auto with_reduce(int reduce, Body&& body) {
  if (reduce == GG_SUM) return body(Constant<GG_SUM>{});
  if (reduce == GG_MEAN) return body(Constant<GG_MEAN>{});
  if (reduce == GG_MAX) return body(Constant<GG_MAX>{});
  if (reduce == GG_MIN) return body(Constant<GG_MIN>{});
  return body(Constant<GG_MUL>{});
}

// Of a derivative of an activation.
template <class Body>
static inline auto with_order(int order, Body&& body) {
  if (order == 0) return body(Constant<0>{});
  if (order == 1) return body(Constant<1>{});
  if (order == 2) return body(Constant<2>{});
  return body(Constant<3>{});
}

// body(how many tangents a kernel takes together): one alone needs no room for others.
template <int most, class Body>
static inline auto with_tangents(int64_t count, Body&& body) {
  return count <= 1 ? body(Constant<1>{}) : body(Constant<most>{});
}

template <class Body>
static inline auto with_activation(int activation, Body&& body) {
  if (activation == GG_SILU) return body(Constant<GG_SILU>{});
  if (activation == GG_TANH) return body(Constant<GG_TANH>{});
  if (activation == GG_RELU) return body(Constant<GG_RELU>{});
  return body(Constant<GG_SOFTPLUS>{});
}

}  // namespace gg
