"""Message passing: reduce over ragged rows, over neighbours, over messages.

Sums run in the order of the rows and edges, never by atomics: the same input gives the same bits, whatever the
number of threads and whatever else is in the batch.
"""

from graphgen.ops.message_passing.attention import neighbor_attention
from graphgen.ops.message_passing.differences import edge_distance
from graphgen.ops.message_passing.messages import message_sum
from graphgen.ops.message_passing.neighbors import edge_dot, neighbor_max, neighbor_min, neighbor_reduce
from graphgen.ops.message_passing.rbf import rbf_neighbor_sum
from graphgen.ops.message_passing.scatter import gather, scatter, scatter_max, scatter_min
from graphgen.ops.message_passing.segments import segment_broadcast, segment_max, segment_min, segment_reduce
from graphgen.ops.message_passing.softmax import edge_softmax

__all__ = [
    "edge_distance",
    "edge_dot",
    "edge_softmax",
    "gather",
    "message_sum",
    "neighbor_attention",
    "neighbor_max",
    "neighbor_min",
    "neighbor_reduce",
    "rbf_neighbor_sum",
    "scatter",
    "scatter_max",
    "scatter_min",
    "segment_broadcast",
    "segment_max",
    "segment_min",
    "segment_reduce",
]
