"""Plain PyTorch twins of the ops, of the same names and signatures."""

from graphgen.ops.reference.dense import activation, linear, softmax
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

__all__ = [
    "activation",
    "edge_distance",
    "edge_dot",
    "edge_softmax",
    "gather",
    "linear",
    "message_sum",
    "neighbor_attention",
    "neighbor_max",
    "neighbor_min",
    "neighbor_reduce",
    "normal",
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
