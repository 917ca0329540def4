// GG_HD marks arithmetic that is one definition for the CPU kernels, the CUDA kernels and the tests;
// GG_MEMBER the same for member functions. GG_UNROLL unrolls the short loop that follows.
#pragma once

#ifdef __CUDACC__
#define GG_HD static __host__ __device__ __forceinline__
#define GG_MEMBER __host__ __device__ __forceinline__
#else
#define GG_HD static inline __attribute__((always_inline))
#define GG_MEMBER inline __attribute__((always_inline))
#endif
#if defined(__CUDA_ARCH__)
#define GG_UNROLL _Pragma("unroll")
#elif defined(__CUDACC__)
#define GG_UNROLL
#else
#define GG_UNROLL _Pragma("GCC unroll 16")
#endif

namespace gg {

// Same-size reinterpretation; works for scalars and for vectors of them.
template <class To, class From>
GG_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace gg
