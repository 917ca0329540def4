"""Plain PyTorch twins of the ops, of the same names and signatures."""

from graphgen.ops.reference.dense import activation, linear, softmax
from graphgen.ops.reference.message_passing import (
    edge_dot,
    gather,
    message_sum,
    neighbor_reduce,
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
    "edge_dot",
    "gather",
    "linear",
    "message_sum",
    "neighbor_reduce",
    "normal",
    "rademacher",
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
