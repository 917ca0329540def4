"""What the ops on neighbours share: how they are handed their edges, and two of their rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import Op, differentiates, fold_batch, loop_batch, unfold_batch

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


def sum_of(*parts: Tensor | None) -> Tensor | None:
    """Of those there are; None is no term."""
    present = [part for part in parts if part is not None]
    return sum(present[1:], present[0]) if present else None


def bilinear_jvp(op: Op, args: Sequence, tangents: Sequence) -> Tensor | None:
    """Of an op that is linear in each of its first two arguments."""
    a, b, *rest = args
    da, db, *_ = tangents
    return sum_of(None if da is None else op(da, b, *rest), None if db is None else op(a, db, *rest))


def vmap_as_heads(op_of: Callable[[], Op], tensors: int) -> Callable[..., tuple[Any, Any]]:
    """For arguments (so many tensors, edges, heads, another): a batch is so many times the heads."""

    def vmap(args, in_dims, size):
        op = op_of()
        if any(dim is not None for dim in in_dims[tensors:]):
            return loop_batch(op, args, in_dims, size)
        folded = (fold_batch(tensor, dim, size) for tensor, dim in zip(args[:tensors], in_dims, strict=False))
        *edges, heads, last = args[tensors:]
        return unfold_batch(op(*folded, *edges, heads * size, last), size)

    return vmap
