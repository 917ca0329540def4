// Every operation of the C interface, once: the tables, declarations and entry points are made from this list.
#pragma once

#define GG_OPERATIONS(DO) \
  DO(segment_reduce)      \
  DO(segment_broadcast)   \
  DO(segment_others)      \
  DO(scatter)             \
  DO(gather)              \
  DO(pick)                \
  DO(place_rows)          \
  DO(group_rows)          \
  DO(neighbor_reduce)     \
  DO(edge_dot)            \
  DO(neighbor_attention)  \
  DO(edge_softmax)        \
  DO(edge_softmax_slope)  \
  DO(edge_difference_dot) \
  DO(edge_laplacian)      \
  DO(rbf_rows)            \
  DO(rbf_edges)           \
  DO(message_sum)         \
  DO(message_push)        \
  DO(message_pull)        \
  DO(linear)              \
  DO(activate)            \
  DO(activate_push)       \
  DO(activate_pull)       \
  DO(softmax)             \
  DO(noise)               \
  DO(brownian)            \
  DO(affine_noise_step)   \
  DO(noise_dot)           \
  DO(embedded_step)       \
  DO(step_control)        \
  DO(graph_dot)           \
  DO(graph_combine)       \
  DO(norm_linear)         \
  DO(norm_linear_pull)    \
  DO(norm_mlp)            \
  DO(norm_mlp_pull)       \
  DO(pair_attention)      \
  DO(pair_attention_pull) \
  DO(pair_walks)
