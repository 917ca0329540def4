#include "../common/cuda_kernels.h"
#include "../message_passing/attention.h"
#include "cursor.h"
#include "refuse.cuh"

#include <limits>

namespace gg::cuda {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAll = 0xffffffffu;

// How the atoms that one atom sees are summed over: exponentials relative to the highest logit so far, scaled down
// when a higher one comes.
template <class Real>
struct Seen {
  static constexpr Real kLowest = -std::numeric_limits<Real>::infinity();
  Real top = kLowest, total = 0, along = 0;

  __device__ __forceinline__ void add(Real logit, Real value) { add(Seen{logit, Real(1), value}); }
  __device__ __forceinline__ void add(const Seen& other) {
    const Real highest = higher(top, other.top), shift = shift_of(highest);
    const Real own = exp_(top - shift), more = exp_(other.top - shift);
    top = highest;
    total = total * own + other.total * more;
    along = along * own + other.along * more;
  }
  // Of the lanes of a warp, in all of them.
  __device__ __forceinline__ void gather() {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
      add(Seen{__shfl_xor_sync(kAll, top, distance), __shfl_xor_sync(kAll, total, distance),
               __shfl_xor_sync(kAll, along, distance)});
  }
};

// One head of one molecule.
template <class S, int N>
struct Head {
  using Real = typename Accumulator<S>::Type;
  const S *query, *key, *value;  // of the molecule's first atom, rows `stride` apart
  const S* bias_gate;            // of the molecule's first pair, rows 2 `heads` apart
  int64_t begin, pair_begin, n, h, heads, width, stride;
  Real root;

  __device__ __forceinline__ Head(const gg_pair_attention_params& p, int64_t block)
      : h(block % p.heads), heads(p.heads), width(p.width / p.heads), stride(3 * p.width) {
    const int64_t* ptr = static_cast<const int64_t*>(p.pairs.ptr) + block / p.heads;
    begin = ptr[0];
    n = ptr[1] - ptr[0];
    pair_begin = static_cast<const int64_t*>(p.pairs.pair_ptr)[block / p.heads];
    query = static_cast<const S*>(p.query_key_value) + begin * stride + h * width;
    key = query + p.width;
    value = key + p.width;
    bias_gate = static_cast<const S*>(p.bias_gate) + pair_begin * 2 * heads + h;
    root = Real(1) / sqrt(static_cast<Real>(width));
  }

  __device__ __forceinline__ Real dot(const S* a, const S* b) const {
    Real sum = 0;
#pragma unroll 2
    for (int64_t f = 0; f < width; f += N) {
      const Pack<S, N> x = Pack<S, N>::load(a + f), y = Pack<S, N>::load(b + f);
#pragma unroll
      for (int v = 0; v < N; ++v) sum += x[v] * y[v];
    }
    return sum;
  }
  // What atom i sees of atom j.
  __device__ __forceinline__ Real logit(int64_t i, int64_t j, int64_t place) const {
    return dot(query + i * stride, key + j * stride) * root + load_scalar(bias_gate + place * 2 * heads);
  }
  __device__ __forceinline__ Real gate(int64_t place) const {
    return sigmoid(sigmoid_floor(load_scalar(bias_gate + (place * 2 + 1) * heads)));
  }
};

// One block a molecule and head, one warp an atom that looks: each lane at an atom, then at a column of the values.
template <class S, int N>
struct PairAttention {
  using Real = typename Accumulator<S>::Type;
  gg_pair_attention_params p;

  __device__ __forceinline__ void operator()(int64_t block) const {
    const Head<S, N> head(p, block);
    const int64_t n = head.n;
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    S* logits = static_cast<S*>(p.logits) + head.pair_begin * head.heads + head.h;
#pragma unroll 1
    for (int64_t i = warp; i < n; i += kWarps) {
      Seen<Real> seen;
      for (int64_t j = lane; j < n; j += kWarp) {
        if (j == i) continue;
        const int64_t place = pair_place(i, j, n);
        const Real logit = head.logit(i, j, place);
        seen.add(logit, Real(0));
        if (j > i) store_scalar(logits + place * head.heads, logit + head.logit(j, i, place));
      }
      seen.gather();
      const Real shift = shift_of(seen.top);
      S* out = static_cast<S*>(p.out) + (head.begin + i) * p.width + head.h * head.width;
#pragma unroll 1
      for (int64_t turn = 0; turn < head.width; turn += kWarp) {
        const int64_t f = turn + lane;
        Real sum = 0;
#pragma unroll 1
        for (int64_t first = 0; first < n; first += kWarp) {
          const int64_t j = first + lane;
          Real weight = 0;
          if (j < n && j != i) {
            const int64_t place = pair_place(i, j, n);
            weight = exp_(head.logit(i, j, place) - shift) / seen.total * head.gate(place);
          }
          const int count = static_cast<int>(n - first < kWarp ? n - first : kWarp);
#pragma unroll 4
          for (int k = 0; k < count; ++k) {
            const Real given = __shfl_sync(kAll, weight, k);
            if (f < head.width && first + k != i)
              sum += given * load_scalar(head.value + (first + k) * head.stride + f);
          }
        }
        if (f < head.width) store_scalar(out + f, sum);
      }
    }
  }
};

// One block a molecule and head, in two passes: what every atom's softmax is shifted by, its total, and the mean of
// its gradient; then one warp an atom, which looks at every other and is looked at by it.
template <class S, int N>
struct PairAttentionPull {
  using Real = typename Accumulator<S>::Type;
  static constexpr int kMost = GG_PAIR_ATOMS + 1;
  gg_pair_attention_pull_params p;

  __device__ __forceinline__ void refuse_all(const Head<S, N>& head) const {
    if (head.h > 0) return;
    refuse(static_cast<S*>(p.to_query_key_value) + head.begin * head.stride, head.n * head.stride);
    refuse(static_cast<S*>(p.to_bias_gate) + head.pair_begin * 2 * head.heads, head.n * (head.n - 1) * head.heads);
  }

  __device__ __forceinline__ void operator()(int64_t block) const {
    __shared__ Real shift[kMost], total[kMost], mean[kMost];
    const Head<S, N> head(p.of, block);
    if (head.n > GG_PAIR_ATOMS) return refuse_all(head);
    const int n = static_cast<int>(head.n), warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int64_t width = p.of.width;
    const S* grad = static_cast<const S*>(p.grad) + head.begin * width + head.h * head.width;
    const S* logits_grad = static_cast<const S*>(p.logits_grad) + head.pair_begin * head.heads + head.h;
    S* to_bias_gate = static_cast<S*>(p.to_bias_gate) + head.pair_begin * 2 * head.heads + head.h;
    __syncthreads();
#pragma unroll 1
    for (int i = warp; i < n; i += kWarps) {
      Seen<Real> seen;
      for (int j = lane; j < n; j += kWarp) {
        if (j == i) continue;
        const int place = pair_place(i, j, n);
        seen.add(head.logit(i, j, place), head.gate(place) * head.dot(grad + i * width, head.value + j * head.stride));
      }
      seen.gather();
      if (lane == 0) {
        shift[i] = shift_of(seen.top);
        total[i] = seen.total;
        mean[i] = seen.along / seen.total;
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int i = warp; i < n; i += kWarps) {
      S* to_query = static_cast<S*>(p.to_query_key_value) + (head.begin + i) * head.stride + head.h * head.width;
#pragma unroll 1
      for (int64_t turn = 0; turn < head.width; turn += kWarp) {
        const int64_t f = turn + lane;
        Real query_sum = 0, key_sum = 0, value_sum = 0;
#pragma unroll 1
        for (int first = 0; first < n; first += kWarp) {
          const int j = first + lane;
          Real to_look = 0, to_be_seen = 0, share_to = 0;  // gradients of L_ij and L_ji, what i's value gives j
          if (j < n && j != i) {
            const int place = pair_place(i, j, n);
            const Real gate = head.gate(place), more = load_scalar(logits_grad + place * head.heads);
            const Real share = exp_(head.logit(i, j, place) - shift[i]) / total[i];
            const Real back = exp_(head.logit(j, i, place) - shift[j]) / total[j];
            const Real along = head.dot(grad + i * width, head.value + j * head.stride);
            const Real along_back = head.dot(grad + j * width, head.value + i * head.stride);
            const Real look = share * (gate * along - mean[i]), seen = back * (gate * along_back - mean[j]);
            to_look = look + more;
            to_be_seen = seen + more;
            share_to = back * gate;
            if (turn == 0 && j > i) {
              S* own = to_bias_gate + int64_t{place} * 2 * head.heads;
              store_scalar(own, to_look + to_be_seen);
              store_scalar(own + head.heads, (share * along + back * along_back) * gate * (Real(1) - gate));
            }
          }
          const int count = n - first < kWarp ? n - first : kWarp;
#pragma unroll 2
          for (int k = 0; k < count; ++k) {
            const Real look = __shfl_sync(kAll, to_look, k), seen = __shfl_sync(kAll, to_be_seen, k);
            const Real share = __shfl_sync(kAll, share_to, k);
            const int64_t row = first + k;
            if (f >= head.width || row == i) continue;
            query_sum += look * load_scalar(head.key + row * head.stride + f);
            key_sum += seen * load_scalar(head.query + row * head.stride + f);
            value_sum += share * load_scalar(grad + row * width + f);
          }
        }
        if (f < head.width) {
          store_scalar(to_query + f, head.root * query_sum);
          store_scalar(to_query + width + f, head.root * key_sum);
          store_scalar(to_query + 2 * width + f, value_sum);
        }
      }
    }
  }
};

// launch(dtype, elements that a head's rows can be read by together).
template <class Launch>
gg_status with_head_pack(const gg_pair_attention_params& p, const void* grad, Launch&& launch) {
  constexpr int kMost = 4;  // heads are often no wider than 12
  if (p.heads == 0) return GG_OK;
  auto packed = [&](auto type) {
    using S = typename decltype(type)::type;
    return packable<S, (kPack<S> < kMost ? kPack<S> : kMost)>(p.width / p.heads, p.query_key_value, grad);
  };
  return with_pack<kMost>(p.dtype, packed, launch);
}

}  // namespace

gg_status pair_attention(const gg_pair_attention_params& p, void* stream) {
  return with_head_pack(p, nullptr, [&](auto type, auto pack) {
    const PairAttention<typename decltype(type)::type, decltype(pack)::value> kernel{p};
    return launch_blocks("pair_attention", p.pairs.molecules * p.heads, stream, kernel);
  });
}

gg_status pair_attention_pull(const gg_pair_attention_pull_params& p, void* stream) {
  return with_head_pack(p.of, p.grad, [&](auto type, auto pack) {
    const PairAttentionPull<typename decltype(type)::type, decltype(pack)::value> kernel{p};
    return launch_blocks("pair_attention_pull", p.of.pairs.molecules * p.of.heads, stream, kernel);
  });
}

}  // namespace gg::cuda
