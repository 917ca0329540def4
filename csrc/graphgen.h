// The C interface of the engine: one plain params struct and one function per operation.
//
// Pointers are addresses of contiguous row-major arrays on the device that gg_place names. No call allocates,
// synchronises or keeps state, so a CUDA call can be captured into a graph. Nothing throws across this
// boundary: a call returns a status, and gg_message() tells the calling thread what went wrong in its last
// failed call.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { GG_OK = 0, GG_INVALID_ARGUMENT = 1, GG_OUT_OF_RANGE = 2, GG_NO_CUDA = 3, GG_CUDA_ERROR = 4 } gg_status;
// bfloat16 accumulates in float32. The integers are for the operations on rows (segments, gather), where they wrap
// around; the others refuse them.
typedef enum { GG_FLOAT32 = 0, GG_FLOAT64 = 1, GG_BFLOAT16 = 2, GG_DATA_INT32 = 3, GG_DATA_INT64 = 4 } gg_dtype;
typedef enum { GG_INT32 = 0, GG_INT64 = 1 } gg_index;
typedef enum { GG_CPU = 0, GG_CUDA = 1 } gg_device;

typedef struct {
  int32_t device;   // gg_device; a CUDA call runs on the current CUDA device
  int32_t threads;  // CPU: how many threads may be used; results do not depend on it
  void* stream;     // CUDA: a cudaStream_t
} gg_place;

const char* gg_message(void);
const char* gg_instruction_set(void);  // what the CPU kernels run on: x86-64-v2, v3, v4 or baseline
int32_t gg_built_with_cuda(void);

// Run on the GNU OpenMP team that the process already has, given the address of its GOMP_parallel (null: on our own
// threads again). Results do not change.
void gg_lend_openmp(void* gomp_parallel);

// out[s] = reduce over slots k in [ptr[s], ptr[s+1]) of src[order[k]]; an empty segment gives 0, a product of none 1.
// The mean of integers floors. The first NaN of a segment is its maximum and its minimum.
typedef enum { GG_SUM = 0, GG_MEAN = 1, GG_MAX = 2, GG_MIN = 3, GG_MUL = 4 } gg_reduce;
typedef struct {
  const void* src;    // [R, features] dtype
  const void* ptr;    // [segments + 1] index
  const void* order;  // [R] index, a permutation of [0, R), or null for the identity
  void* out;          // [segments, features] dtype
  int64_t* arg;       // GG_MAX, GG_MIN: [segments, features], the first row that has the value, R if empty; or null
  int64_t segments, features;
  int32_t dtype, index, reduce;
  // R. The CPU call refuses a ptr that leaves [0, R] or falls, and an order that leaves [0, R); the CUDA call clamps
  // the one and trusts the other.
  int64_t rows;
} gg_segment_reduce_params;
gg_status gg_segment_reduce(const gg_segment_reduce_params* params, const gg_place* place);

// The transpose of the sum (for GG_MEAN of the mean): out[order[k]] = src[s], k in segment s.
// The CPU call writes 0 to rows in no segment; the CUDA call leaves them, so its caller clears them first.
typedef struct {
  const void* src;    // [segments, features] dtype
  const void* ptr;    // [segments + 1] index
  const void* order;  // [R] index, or null
  void* out;          // [R, features] dtype
  int64_t segments, features;
  int32_t dtype, index, reduce;
  int64_t rows;  // R, checked as above
} gg_segment_broadcast_params;
gg_status gg_segment_broadcast(const gg_segment_broadcast_params* params, const gg_place* place);

// The derivative of a segment's product: out[order[k]] = the product of the segment's other rows. No quotient, so zeros
// are no exception. Partial products wait in out, so bfloat16 is refused. Rows in no segment: as above.
typedef struct {
  const void* src;    // [R, features] dtype
  const void* ptr;    // [segments + 1] index
  const void* order;  // [R] index, or null
  void* out;          // [R, features] dtype
  int64_t segments, features;
  int32_t dtype, index;
  int64_t rows;
} gg_segment_others_params;
gg_status gg_segment_others(const gg_segment_others_params* params, const gg_place* place);

// out[position[k, c], c, :] = reduce over k of src[k, c, :], rows being columns of features / columns elements each;
// what nothing arrives at is 0, or 1 for GG_MUL. Partial results wait in out, so bfloat16 is refused. CPU only: on
// CUDA, group the rows by a sort and reduce segments. Refuses a position outside [0, rows).
typedef struct {
  const void* src;       // [count, features] dtype
  const void* position;  // [count, columns] index
  void* out;             // [rows, features] dtype
  int64_t* arg;          // GG_MAX, GG_MIN: [rows, features], the first k that has the value, `count` if none
  int64_t* arrived;      // room for [rows, columns]
  int64_t count, rows, features, columns;
  int32_t dtype, index, reduce;
} gg_scatter_params;
gg_status gg_scatter(const gg_scatter_params* params, const gg_place* place);

// out[k, c, :] = src[position[k, c], c, :], columns as above. The CPU call refuses an position outside [0, R); the CUDA
// call writes 0 for it.
typedef struct {
  const void* src;       // [R, features] dtype
  const void* position;  // [count, columns] index
  void* out;             // [count, features] dtype
  int64_t rows, features, count, columns;
  int32_t dtype, index;
} gg_gather_params;
gg_status gg_gather(const gg_gather_params* params, const gg_place* place);

// out[s, f] = src[arg[s, f], f], or 0 where arg is outside [0, R): the derivative of a maximum.
typedef struct {
  const void* src;     // [R, features] dtype
  const int64_t* arg;  // [count, features]
  void* out;           // [count, features] dtype
  int64_t rows, features, count;
  int32_t dtype;
} gg_pick_params;
gg_status gg_pick(const gg_pick_params* params, const gg_place* place);

// Its transpose: out[arg[s, f], f] = src[s, f]. Nothing else is written, so the caller clears out first; nor may two
// places of arg name the same element.
typedef struct {
  const void* src;     // [count, features] dtype
  const int64_t* arg;  // [count, features]
  void* out;           // [R, features] dtype
  int64_t rows, features, count;
  int32_t dtype;
} gg_place_rows_params;
gg_status gg_place_rows(const gg_place_rows_params* params, const gg_place* place);

// Sorts positions by their index, stably: those of value d are order[ptr[d]:ptr[d + 1]], in order. CPU only: on CUDA a
// sort needs memory of its own, and its caller has one. Refuses an index outside [0, size).
typedef struct {
  const void* values;  // [count] index
  void* ptr;           // [size + 1] index
  void* order;         // [count] index
  int64_t count, size;
  int32_t index;
} gg_group_rows_params;
gg_status gg_group_rows(const gg_group_rows_params* params, const gg_place* place);

// out[i, f] = reduce over slots s in [rowptr[i], rowptr[i+1]) of weight[e, head(f)] * x[neighbor[s], f], e = edge[s]
// and head(f) = f / (features / heads): one weight an edge is one head, one a feature as many heads as features. With
// arg, which sums only, a term counts where arg[i, f] == e, or where arg[neighbor[s], f] == e if arg_of_neighbor: that
// is the derivative of a maximum by its terms, and its transpose.
typedef struct {
  const void* x;         // [M, features] dtype
  const void* weight;    // [E, heads] dtype, or null for 1
  const int64_t* arg;    // [rows, features], or [M, features] if arg_of_neighbor; null: every term counts
  const void* rowptr;    // [rows + 1] index
  const void* neighbor;  // [E] index, values in [0, M)
  const void* edge;      // [E] index, rising within a row; or null for the identity
  void* out;             // [rows, features] dtype
  int64_t* out_arg;      // GG_MAX, GG_MIN: [rows, features], the first edge that has the value, E if none; or null
  int64_t rows, features, heads, edges;
  int32_t dtype, index, reduce, arg_of_neighbor;
} gg_neighbor_reduce_params;
gg_status gg_neighbor_reduce(const gg_neighbor_reduce_params* params, const gg_place* place);

// out[e, h] = sum over the features f of head h of target[i, f] * source[neighbor[s], f] for every slot s of row i,
// e = edge[s]. With arg, only the features where arg[i, f] == e, or arg[neighbor[s], f] == e, count.
typedef struct {
  const void* target;    // [rows, features] dtype
  const void* source;    // [M, features] dtype
  const int64_t* arg;    // [rows, features], or [M, features] if arg_of_neighbor; or null
  const void* rowptr;    // [rows + 1] index
  const void* neighbor;  // [E] index
  const void* edge;      // [E] index, or null for the identity
  void* out;             // [E, heads] dtype
  int64_t rows, features, heads;
  int32_t dtype, index, arg_of_neighbor;
} gg_edge_dot_params;
gg_status gg_edge_dot(const gg_edge_dot_params* params, const gg_place* place);

// out[e] = exp(logits[e] - max) / sum, both over the edges [rowptr[i], rowptr[i+1]) of e's row, per head.
typedef struct {
  const void* logits;  // [E, heads] dtype
  const void* rowptr;  // [rows + 1] index
  void* out;           // [E, heads] dtype
  int64_t rows, heads;
  int32_t dtype, index;
} gg_edge_softmax_params;
gg_status gg_edge_softmax(const gg_edge_softmax_params* params, const gg_place* place);

// The above's Jacobian, which is symmetric, times a direction:
// out[e] = probability[e] * (direction[e] - sum over the row of probability * direction).
typedef struct {
  const void* probability;  // [E, heads] dtype, a result of gg_edge_softmax
  const void* direction;    // [E, heads] dtype
  const void* rowptr;       // [rows + 1] index
  void* out;                // [E, heads] dtype
  int64_t rows, heads;
  int32_t dtype, index;
} gg_edge_softmax_slope_params;
gg_status gg_edge_softmax_slope(const gg_edge_softmax_slope_params* params, const gg_place* place);

// Per head h: out[i, h] = sum over slots s of row i of p_s * v[j, h], j = neighbor[s], with p the softmax over the
// slots of scale * <q[i, h], k[j, h]> + bias[s, h]. 0 for a row without slots.
typedef struct {
  const void* q;         // [rows, heads, width] dtype
  const void* k;         // [M, heads, width] dtype
  const void* v;         // [M, heads, value_width] dtype
  const void* bias;      // [E, heads] dtype, or null for 0
  const void* rowptr;    // [rows + 1] index
  const void* neighbor;  // [E] index
  void* out;             // [rows, heads, value_width] dtype
  int64_t rows, heads, width, value_width;
  double scale;
  int32_t dtype, index;
} gg_neighbor_attention_params;
gg_status gg_neighbor_attention(const gg_neighbor_attention_params* params, const gg_place* place);

// out[e] = <a[i] - a[j], b[i] - b[j]> for every edge e: j = neighbor[e] -> i, e in [rowptr[i], rowptr[i+1]); with
// root its square root, which for b = a is the edge's length.
typedef struct {
  const void* a;         // [rows, features] dtype
  const void* b;         // [rows, features] dtype
  const void* rowptr;    // [rows + 1] index
  const void* neighbor;  // [E] index, values in [0, rows)
  void* out;             // [E] dtype
  int64_t rows, features;
  int32_t dtype, index, root;
} gg_edge_difference_dot_params;
gg_status gg_edge_difference_dot(const gg_edge_difference_dot_params* params, const gg_place* place);

// The transpose of the above in a, of weights w and x = b:
// out[i] = sum over the edges e between i and some j, first those that enter i and then those that leave it, of
// w[e] * (x[i] - x[j]).
typedef struct {
  const void* weight;       // [E] dtype
  const void* x;            // [rows, features] dtype
  const void* rowptr[2];    // [rows + 1] index, of the edges that enter and of those that leave
  const void* neighbor[2];  // [E] index
  const void* edge[2];      // [E] index, or null for the identity
  void* out;                // [rows, features] dtype
  int64_t rows, features;
  int32_t dtype, index;
} gg_edge_laplacian_params;
gg_status gg_edge_laplacian(const gg_edge_laplacian_params* params, const gg_place* place);

// With z = distance[e] - centers[k] and phi = z^power exp(-gamma[k] z^2):
// out[i][k] = sum over the edges e of row i of weight[e] * phi.
typedef struct {
  const void* weight;    // [E] dtype, or null for 1
  const void* distance;  // [E] dtype; on the CPU null for the lengths of the edges between rows of x
  const void* x;         // [rows, features] dtype, read only without distance
  const void* rowptr;    // [rows + 1] index
  const void* neighbor;  // [E] index, read only without distance
  const void* centers;   // [bases] dtype
  const void* gamma;     // [bases] dtype
  void* out;             // [rows, bases] dtype
  int64_t rows, bases, features;
  int32_t power, dtype, index;
} gg_rbf_rows_params;
gg_status gg_rbf_rows(const gg_rbf_rows_params* params, const gg_place* place);

// The transpose of the above: out[e] = sum over k of rows_of[i][k] * phi, for every edge e of row i.
typedef struct {
  const void* rows_of;   // [rows, bases] dtype
  const void* distance;  // [E] dtype
  const void* rowptr;    // [rows + 1] index
  const void* centers;   // [bases] dtype
  const void* gamma;     // [bases] dtype
  void* out;             // [E] dtype
  int64_t rows, bases;
  int32_t power, dtype, index;
} gg_rbf_edges_params;
gg_status gg_rbf_edges(const gg_rbf_edges_params* params, const gg_place* place);

// With z_m = target_m[i] + source_m[j] + bias_m[type] for m = 0..order (a null part counts as 0) and
//   A = sum over edges j -> i and features of act^(order - 1)(z_0) z_1 ... z_order
// the derivatives of A by those parts of the z_m whose place in the outputs is not null:
//   act^(order)(z_0) z_1 ... z_order                           summed by target, source or type, for m = 0,
//   act^(order - 1)(z_0) times the z_n with n neither 0 nor m  for m > 0.
// Order 0 is the message layer itself; higher orders are its tangent and its derivatives. Outputs by target and type
// are found in one sweep over the edges by target, those by source in one over the edges by source.
typedef enum { GG_SILU = 0, GG_TANH = 1, GG_RELU = 2, GG_SOFTPLUS = 3 } gg_activation;
#define GG_ACTIVATIONS 4
#define GG_ORDERS 4           // of derivatives of an activation: 0 to 3
#define GG_MESSAGE_CHUNK 256  // rows per partial sum by type
typedef struct {
  const void *target, *source;  // [rows, features] dtype, or null
  const void* bias;             // [types, features] dtype, or null
} gg_message_term;
typedef struct {
  void *target, *source;  // [rows, features] dtype, or null
  void* bias;             // [types, features] dtype, or null
} gg_message_gradient;
typedef struct {
  const void* rowptr;    // [rows + 1] index
  const void* neighbor;  // [E] index
  const void* type;      // [E] index in slot order, values in [0, types); null for all 0
} gg_message_edges;
typedef struct {
  gg_message_term term[GG_ORDERS];
  gg_message_gradient out[GG_ORDERS];
  gg_message_edges by_target, by_source;  // the latter is read for outputs by source only
  void* partial;  // [ceil(rows / GG_MESSAGE_CHUNK), bias outputs, types, features] of the accumulation type
  int64_t rows, features, types;
  int32_t order, activation, dtype, index;
} gg_message_sum_params;
gg_status gg_message_sum(const gg_message_sum_params* params, const gg_place* place);

// A message layer and `count` > 0 tangents of it in one sweep, which finds act' once for all of them. With
// z = target[i] + source[j] + bias[type] and z'[k] = target_along[k, i] + source_along[k, j] (a null part counts as 0),
//   value[i] = sum over edges j -> i of act(z),  tangent[k, i] = sum of act'(z) z'[k].
// With `home` the rows are not the nodes: row r has the edges of node home[r], and its tangents' part by target is row
// own[r], that by source of the edge in its slot s is row from[first[r] + s], of arrays of target_rows and source_rows
// rows. Of an array of one row every row is that one; where there is no row, for a negative index, its part is 0.
typedef struct {
  const void *target, *source;              // [nodes, features] dtype
  const void* bias;                         // [types, features] dtype
  const void *target_along, *source_along;  // [count, target_rows or source_rows, features] dtype, or null
  void* value;                              // [rows, features] dtype, or null, as it is with home
  void* tangent;                            // [count, rows, features] dtype
  gg_message_edges edges;                   // by target
  const void *home, *own, *first, *from;    // index; null if the rows are the nodes
  int64_t rows, target_rows, source_rows, features, count;
  int32_t activation, dtype, index;
} gg_message_push_params;
gg_status gg_message_push(const gg_message_push_params* params, const gg_place* place);

// Its transpose: what a gradient [rows, features] by the value and gradients [count, rows, features] by the tangents
// give back to the parts of z and z', each where it is not null; rows are nodes.
typedef struct {
  const void *target, *source, *bias;       // as above
  const void *target_along, *source_along;  // [count, rows, features] dtype
  const void* value_grad;                   // [rows, features] dtype, or null
  const void* tangent_grad;                 // [count, rows, features] dtype
  void *to_target, *to_source;              // [rows, features] dtype, or null
  void* to_bias;                            // [types, features] dtype, or null
  void *to_target_along, *to_source_along;  // [count, rows, features] dtype, or null
  gg_message_edges by_target, by_source;    // the latter is read for outputs by source only
  void* partial;  // for to_bias: [ceil(rows / GG_MESSAGE_CHUNK), types, features] of the accumulation type
  int64_t rows, features, types, count;
  int32_t activation, dtype, index;
} gg_message_pull_params;
gg_status gg_message_pull(const gg_message_pull_params* params, const gg_place* place);

// out = x weight + bias. Every output is one chain of fused multiply-adds in the order of k, so a row's bits
// do not depend on how many other rows there are or on where it stands among them.
typedef struct {
  const void* x;       // [rows, inner] dtype
  const void* weight;  // [inner, outer] dtype
  const void* bias;    // [outer] dtype, or null
  void* out;           // [rows, outer] dtype
  int64_t rows, inner, outer;
  int32_t dtype;
} gg_linear_params;
gg_status gg_linear(const gg_linear_params* params, const gg_place* place);

// What every row is brought to below: mean 0 and variance 1, x^ = (x - mean) / sqrt(variance + 1e-5).
// Of the CPU calls, widths are at most GG_NORM_WIDTH. Rows' bits are independent as for gg_linear.
#define GG_NORM_WIDTH 512

// out = x^ weight + bias.
typedef struct {
  const void* x;       // [rows, inner] dtype
  const void* weight;  // [inner, outer] dtype
  const void* bias;    // [outer] dtype, or null
  void* out;           // [rows, outer] dtype
  int64_t rows, inner, outer;
  int32_t dtype;
} gg_norm_linear_params;
gg_status gg_norm_linear(const gg_norm_linear_params* params, const gg_place* place);

// Its transpose: to_x, and x^ for the weight's gradient x^^T grad.
typedef struct {
  const void* x;       // [rows, inner] dtype
  const void* weight;  // [outer, inner] dtype: the weight above, transposed
  const void* grad;    // [rows, outer] dtype
  void* to_x;          // [rows, inner] dtype
  void* normal;        // [rows, inner] dtype, x^
  int64_t rows, inner, outer;
  int32_t dtype;
} gg_norm_linear_pull_params;
gg_status gg_norm_linear_pull(const gg_norm_linear_pull_params* params, const gg_place* place);

// All pairs i < j of atoms of the same molecule, once each: those of a molecule of n atoms lie together, in the order
// (0, 1), (0, 2), ..., (1, 2), ...
typedef struct {
  const void* ptr;       // [molecules + 1] int64: molecule g owns the atoms [ptr[g], ptr[g + 1])
  const void* pair_ptr;  // [molecules + 1] int64: and the pairs [pair_ptr[g], pair_ptr[g + 1])
  int64_t molecules;
} gg_pairs;

// out = x + silu(met) weight + bias, where a row t, the pair (i, j), has
//   met = x^ own + first_bias + ends[i] + ends[j] + logits[t] of_logits.
// Rows that are no pairs have null ends and logits, and pairs.molecules 0.
typedef struct {
  const void* x;           // [rows, width] dtype
  const void* own;         // [width, inner] dtype
  const void* first_bias;  // [inner] dtype, or null
  const void* ends;        // [atoms, inner] dtype, or null
  const void* logits;      // [rows, heads] dtype, or null
  const void* of_logits;   // [heads, inner] dtype, or null
  const void* weight;      // [inner, width] dtype
  const void* bias;        // [width] dtype, or null
  void* out;               // [rows, width] dtype
  gg_pairs pairs;
  int64_t rows, width, inner, heads;
  int32_t dtype;
} gg_norm_mlp_params;
gg_status gg_norm_mlp(const gg_norm_mlp_params* params, const gg_place* place);

// Its transpose, and what the gradients of the weights are products of: of own x^^T to_met, of of_logits
// logits^T to_met, of weight hidden^T grad.
typedef struct {
  gg_norm_mlp_params of;    // its out and bias are not read
  const void* own_t;        // [inner, width] dtype: own, transposed
  const void* of_logits_t;  // [inner, heads] dtype, or null
  const void* weight_t;     // [width, inner] dtype
  const void* grad;         // [rows, width] dtype
  void* to_x;               // [rows, width] dtype
  void* to_ends;            // [atoms, inner] dtype, or null
  void* to_logits;          // [rows, heads] dtype, or null
  void* normal;             // [rows, width] dtype, x^
  void* hidden;             // [rows, inner] dtype, silu(met)
  void* to_met;             // [rows, inner] dtype
} gg_norm_mlp_pull_params;
gg_status gg_norm_mlp_pull(const gg_norm_mlp_pull_params* params, const gg_place* place);

// Attention of every atom i to the others j /= i of its molecule. With d = width / heads and, of the pair t of i and j,
// bias_gate[t] = (b, c) per head: L_ij = <q_i, k_j> / sqrt(d) + b_t, and
//   out[i] = sum over j of softmax over j (L_ij) sigmoid(c_t) v_j,   logits[t] = L_ij + L_ji.
// An atom alone gets 0. The CPU call takes heads of at most GG_HEAD_WIDTH and molecules of at most GG_PAIR_ATOMS atoms.
// On CUDA neither is bounded here; the transpose has that bound on atoms.
#define GG_HEAD_WIDTH 128
#define GG_PAIR_ATOMS 255
typedef struct {
  const void* query_key_value;  // [atoms, 3 width] dtype: queries, keys, values, each head by head
  const void* bias_gate;        // [T, 2 heads] dtype: biases, gates
  void* out;                    // [atoms, width] dtype
  void* logits;                 // [T, heads] dtype
  gg_pairs pairs;
  int64_t width, heads;
  int32_t dtype;
} gg_pair_attention_params;
gg_status gg_pair_attention(const gg_pair_attention_params* params, const gg_place* place);

// Its transpose. A CUDA call cannot see sizes: beyond GG_PAIR_ATOMS atoms it gives a molecule NaN.
typedef struct {
  gg_pair_attention_params of;  // its out and logits are not read
  const void* grad;             // [atoms, width] dtype
  const void* logits_grad;      // [T, heads] dtype
  void* to_query_key_value;     // [atoms, 3 width] dtype
  void* to_bias_gate;           // [T, 2 heads] dtype
} gg_pair_attention_pull_params;
gg_status gg_pair_attention_pull(const gg_pair_attention_pull_params* params, const gg_place* place);

// Walks of 1 to length steps on the bonds of molecules. With S_ij = bonded_t / sqrt(d_i d_j), d_i the sum of an atom's
// bonded_t and at least 1: returns[i, k - 1] = (S^k)_ii, walks[t, k - 1] = (S^k)_ij. At most GG_PAIR_ATOMS atoms.
// Beyond these a CUDA call, which cannot see sizes, gives a molecule NaN.
typedef struct {
  const void* bonded;  // [T] dtype
  void* returns;       // [atoms, length] dtype
  void* walks;         // [T, length] dtype
  gg_pairs pairs;
  int64_t length;
  int32_t dtype;
} gg_pair_walks_params;
gg_status gg_pair_walks(const gg_pair_walks_params* params, const gg_place* place);

// Element by element, where out[m] is not null:
//   out[0] = act^(order)(x[0]) x[1] ... x[order],
//   out[m] = act^(order - 1)(x[0]) times the x[n] with n neither 0 nor m, for m > 0.
typedef struct {
  const void* x[GG_ORDERS];  // [count] dtype; null where no output reads it
  void* out[GG_ORDERS];      // [count] dtype, or null
  int64_t count;
  int32_t order, activation, dtype;
} gg_activate_params;
gg_status gg_activate(const gg_activate_params* params, const gg_place* place);

// Element by element, with z = x + y and z'[k] = x_along[k] + y_along[k], where a null array counts as 0:
//   value = skip + act(z),  tangent[k] = skip_along[k] + act'(z) z'[k].
typedef struct {
  const void *x, *y, *skip;                    // [size] dtype; y and skip may be null
  const void *x_along, *y_along, *skip_along;  // [count, size] dtype; likewise
  void* value;                                 // [size] dtype, or null
  void* tangent;                               // [count, size] dtype
  int64_t size, count;
  int32_t activation, dtype;
} gg_activate_push_params;
gg_status gg_activate_push(const gg_activate_push_params* params, const gg_place* place);

// What a gradient by the value and gradients by the tangents give back to z and to z'.
typedef struct {
  const void *x, *y;              // as above
  const void *x_along, *y_along;  // as above
  const void* value_grad;         // [size] dtype, or null
  const void* tangent_grad;       // [count, size] dtype
  void* to_z;                     // [size] dtype, or null
  void* to_along;                 // [count, size] dtype, or null
  int64_t size, count;
  int32_t activation, dtype;
} gg_activate_pull_params;
gg_status gg_activate_pull(const gg_activate_pull_params* params, const gg_place* place);

// out[r] = exp(x[r] - max) / sum over the row.
typedef struct {
  const void* x;  // [rows, features] dtype
  void* out;      // [rows, features] dtype
  int64_t rows, features;
  int32_t dtype;
} gg_softmax_params;
gg_status gg_softmax(const gg_softmax_params* params, const gg_place* place);

// Where noise comes from. The noise contract, version 1, see noise/philox.h: the bits of element e of graph g depend on
// (seed, stream, graph id, step, e) and on nothing else. Elements are numbered in row-major order of the graph's rows,
// or of its unordered pairs, see noise/pairs.h.
typedef struct {
  const void* ptr;         // [graphs + 1] int64 row boundaries from 0 to rows, never falling; the CPU call checks them
  const void* graph_id;    // [graphs] int64 in [0, 2^48), checked likewise, or null for 0, 1, 2, ...
  const int64_t* step_at;  // a number on the device that is added to step, modulo 2^32; or null
  uint64_t seed;
  uint32_t stream, step;
  int32_t symmetric;  // rows of a graph are the ordered pairs of its nodes, whose two orders share their noise
} gg_graph_noise;

typedef enum { GG_UNIFORM = 0, GG_NORMAL = 1, GG_RADEMACHER = 2 } gg_distribution;
typedef struct {
  gg_graph_noise noise;
  void* out;  // [rows, features] dtype
  int64_t graphs, rows, features;
  int32_t distribution, dtype;
} gg_noise_params;
gg_status gg_noise(const gg_noise_params* params, const gg_place* place);

// Brownian motion as a function of time, see noise/brownian.h: for every element e of graph g
//   out[e] = W(end) - W(start),  integral[e] = the integral of W(t) - W(start) over t from start to end.
// Times may be in any order. The path depends on (seed, stream, graph id, e, cell, depth) and on nothing else;
// noise.step and step_at are not looked at, and symmetric is refused.
typedef struct {
  gg_graph_noise noise;
  const double *start, *end;    // [graphs], or null for the same time everywhere
  double start_time, end_time;  // that time
  double cell;                  // the length of a cell: between multiples of it a point costs one normal a cell
  void* out;                    // [rows, features] dtype
  void* integral;               // likewise, or null
  int64_t graphs, rows, features;
  int32_t depth;  // halvings of a cell, 0 to 47: its shortest interval is cell / 2^depth
  int32_t dtype;
} gg_brownian_params;
gg_status gg_brownian(const gg_brownian_params* params, const gg_place* place);

// A solver step. For every element e of graph g, with standard normal noise xi:
//   out[e] = sum over k of scale[k] coefficient[k][g] term[k][e] + amplitude_scale amplitude[g] diffusion[e] xi[e],
// added in this order, every operation rounded; or term[0][e] where keep is set. out may be any of the terms.
// broken[g] becomes the step's number where it is negative and out is not finite somewhere in graph g.
#define GG_TERMS 8
typedef struct {
  gg_graph_noise noise;
  const void* term[GG_TERMS];         // [rows, features] dtype
  const void* coefficient[GG_TERMS];  // [graphs] of the accumulation type, or null for 1
  double scale[GG_TERMS];
  const void* diffusion;  // [rows, features] dtype, or null for 1
  const void* amplitude;  // [graphs] of the accumulation type, or null for 1
  double amplitude_scale;
  const uint8_t* keep;  // [rows, keep_features], 0 or not; or null for 0
  void* out;            // [rows, features] dtype
  int64_t* broken;      // [graphs], or null
  int64_t graphs, rows, features, keep_features;
  int32_t terms, noisy, dtype;
} gg_affine_noise_step_params;
gg_status gg_affine_noise_step(const gg_affine_noise_step_params* params, const gg_place* place);

// Room for partial sums of a graph on CUDA: rows * features / GG_SUM_CHUNK + graphs doubles. Sums run over 32 lanes
// within a chunk of a graph, then in order over its chunks.
#define GG_SUM_CHUNK 1024

// out[g] = sum over the elements e of graph g of a[e] b[e] xi[e]^power, those where keep is set left out.
typedef struct {
  gg_graph_noise noise;
  const void *a, *b;    // [rows, features] dtype, or null for 1
  const uint8_t* keep;  // as above
  void* out;            // [graphs] of the accumulation type
  double* partial;      // CUDA: see GG_SUM_CHUNK
  int64_t graphs, rows, features, keep_features;
  int32_t power, dtype;  // power 0, 1 or 2
} gg_noise_dot_params;
gg_status gg_noise_dot(const gg_noise_dot_params* params, const gg_place* place);

// A step as above, without noise or keep, and how far it is from its embedded twin:
//   norm[g] = root mean square over e of error[e] / (atol + rtol max(|term[0][e]|, |out[e]|)),
//   error[e] = sum over k of error_scale[k] coefficient[k][g] term[k][e];  0 for a graph without elements.
typedef struct {
  gg_affine_noise_step_params step;  // its out may be null
  double error_scale[GG_TERMS];
  double atol, rtol;
  void* norm;       // [graphs] of the accumulation type
  double* partial;  // CUDA: see GG_SUM_CHUNK
  int32_t dtype;    // that of step
} gg_embedded_step_params;
gg_status gg_embedded_step(const gg_embedded_step_params* params, const gg_place* place);

// Between two steps of a solve in which every graph has its own: decides for each graph whether the step it tried was
// good, chooses its next, and says where the stages of that one lie in time. The state may have several parts, and a
// graph's error is the root mean square over all its elements.
// A graph has come `done` of the way `span`; it fails where a step is not good and none shorter may be tried.
#define GG_PARTS 4
#define GG_STAGES 7
typedef struct {
  const void* norm[GG_PARTS];  // [graphs] of the accumulation type, from gg_embedded_step
  const void* ptr[GG_PARTS];   // [graphs + 1] int64 row boundaries of the part
  int64_t features[GG_PARTS];
  double* done;       // [graphs]
  double* length;     // [graphs] of the step that was tried, and then of the next
  void* h;            // [graphs] of the accumulation type: its length with its direction, 0 where nothing is left to do
  void* time;         // [stages, graphs] of the accumulation type
  uint8_t* accepted;  // [graphs] 1 where the step was good
  int64_t* failed_at;  // [graphs] the step that failed, -1 for none
  int64_t* counts;     // [3] graphs on their way, steps accepted, graphs failed; CUDA adds to it
  double node[GG_STAGES];
  double start, direction, span;          // direction is 1 or -1
  double safety, shrink, grow, smallest;  // smallest: a share of span
  int64_t graphs, step;                   // step counts what was tried before
  int64_t equal_steps;                    // this many steps of one length, good where they are finite; 0: by the error
  int32_t parts, stages, order, dtype;    // parts 0: nothing was tried yet; the error grows with length^order
} gg_step_control_params;
gg_status gg_step_control(const gg_step_control_params* params, const gg_place* place);

// out[k, m, g] = <a[k], b[m]> over the rows [ptr[g], ptr[g + 1]), added in an order that depends on the number of these
// elements alone. ptr is checked, or clamped, as that of gg_segment_reduce.
typedef struct {
  const void* a;    // [count_a, rows, features] dtype
  const void* b;    // [count_b, rows, features] dtype
  const void* ptr;  // [segments + 1] index
  void* out;        // [count_a, count_b, segments] dtype
  int64_t segments, rows, features, count_a, count_b;
  int32_t dtype, index;
} gg_graph_dot_params;
gg_status gg_graph_dot(const gg_graph_dot_params* params, const gg_place* place);

// Its transpose in a: out[k] = sum over m of weight[k, m, g] * b[m] on the rows of g, in the order of m.
// The CPU call writes 0 to rows in no segment; the CUDA call leaves them, so its caller clears them first.
typedef struct {
  const void* weight;  // [count, terms, segments] dtype
  const void* b;       // [terms, rows, features] dtype
  const void* ptr;     // [segments + 1] index
  void* out;           // [count, rows, features] dtype
  int64_t segments, rows, features, count, terms;
  int32_t dtype, index;
} gg_graph_combine_params;
gg_status gg_graph_combine(const gg_graph_combine_params* params, const gg_place* place);

#ifdef __cplusplus
}
#endif
