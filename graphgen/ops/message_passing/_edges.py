"""How the ops on neighbours are handed their edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import differentiates

# Every neighbour op takes its edges twice: by the row that sums (rowptr, neighbor, edge) and, for derivatives, turned
# round (the same three). Turning an op's edges round is swapping the triples.
EDGES = "Tensor rowptr, Tensor neighbor, Tensor? edge, Tensor? rowptr_t, Tensor? neighbor_t, Tensor? edge_t"


def edges_of(graph: GraphBatch, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    turned = graph.outgoing if differentiates(*tensors) else (None, None, None)
    return (*graph.incoming, *turned)


def turn(edges: tuple) -> tuple:
    return (*edges[3:], *edges[:3])


def plain_graph(edges: Sequence, rows: int) -> tuple[GraphBatch, Tensor | None]:
    """For the reference implementations: the edges as a graph, and where its per-edge tensors come from."""
    rowptr, neighbor, edge = edges[:3]
    ptr = rowptr.new_tensor([0, rows])
    return GraphBatch(ptr=ptr, rowptr=rowptr, col=neighbor, perm=torch.empty(0)), edge


def check_nodes(name: str, argument: str, x: Tensor, graph: GraphBatch) -> None:
    if x.dim() != 2 or x.shape[0] != graph.num_nodes:
        raise ValueError(f"{name}: {argument} must be [{graph.num_nodes}, F], got {list(x.shape)}")
    if x.device != graph.device:
        raise ValueError(f"{name}: {argument} is on {x.device}, the graph on {graph.device}")
