"""The engine's operations on tensors; plain PyTorch twins of the same names are in :mod:`graphgen.ops.reference`."""

from graphgen.ops import reference
from graphgen.ops.dense import activation, linear, node_update, softmax
from graphgen.ops.message_passing import (
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
from graphgen.ops.noise import normal, rademacher, uniform
from graphgen.ops.trace import divergence, graph_dot, graph_scale, probe_dot

__all__ = [
    "activation",
    "divergence",
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
    "reference",
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
