"""Plain PyTorch twins of the ops, of the same names and signatures."""

from graphgen.ops.reference.dense import activation, linear, node_update, softmax
from graphgen.ops.reference.message_passing import (
    edge_distance,
    edge_dot,
    edge_softmax,
    gather,
    message_sum,
    neighbor_attention,
    neighbor_max,
    neighbor_min,
    neighbor_reduce,
    rbf_neighbor_sum,
    scatter,
    scatter_max,
    scatter_min,
    segment_broadcast,
    segment_max,
    segment_min,
    segment_reduce,
)
from graphgen.ops.reference.noise import normal, rademacher, uniform
from graphgen.ops.reference.trace import graph_dot, graph_scale, probe_dot

__all__ = [
    "activation",
    "edge_distance",
    "edge_dot",
    "edge_softmax",
    "gather",
    "graph_dot",
    "graph_scale",
    "linear",
    "message_sum",
    "neighbor_attention",
    "neighbor_max",
    "neighbor_min",
    "neighbor_reduce",
    "node_update",
    "normal",
    "probe_dot",
    "rademacher",
    "rbf_neighbor_sum",
    "scatter",
    "scatter_max",
    "scatter_min",
    "segment_broadcast",
    "segment_max",
    "segment_min",
    "segment_reduce",
    "softmax",
    "uniform",
]
