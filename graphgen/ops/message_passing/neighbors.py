"""Reduce over neighbours, and its derivative by the weights of the edges."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, fold_batch, loop_batch, unfold_batch
from graphgen.ops.message_passing._edges import EDGES, check_nodes, edges_of, plain_graph, turn
from graphgen.ops.reference import message_passing as reference


def _neighbor_reduce_kernel(x: Tensor, weight: Tensor | None, *rest) -> Tensor:
    *edges, reduce = rest
    rowptr, neighbor, edge = edges[:3]
    if not _native.runs(x):
        graph, edge = plain_graph(edges, x.shape[0])
        in_slots = weight if weight is None or edge is None else weight[edge]
        return reference.neighbor_reduce(x, graph, in_slots, reduce)
    x = x.contiguous()
    weight = None if weight is None else weight.contiguous()
    out = x.new_empty((rowptr.numel() - 1, x.shape[1]))
    _native.call(
        _C.neighbor_reduce,
        x,
        x.data_ptr(),
        _native.address(weight),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        _native.address(edge),
        out.data_ptr(),
        out.shape[0],
        out.shape[1],
        _native.DTYPES[x.dtype],
        _native.INDICES[rowptr.dtype],
        _native.REDUCES[reduce],
    )
    return out


def _over_degree(grad: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    return grad / rowptr.diff().clamp(min=1).unsqueeze(-1).to(grad.dtype) if reduce == "mean" else grad


def _neighbor_reduce_vjp(args, grad, needs):
    x, weight, *edges, reduce = args
    grad = _over_degree(grad, edges[0], reduce)
    return (
        _neighbor_reduce(grad, weight, *turn(edges), "sum") if needs[0] else None,
        _edge_dot(grad, x, *edges) if needs[1] else None,
        *(None,) * 7,
    )


def _neighbor_reduce_jvp(args, tangents):
    x, weight, *rest = args
    dx, dweight, *_ = tangents
    out = None if dx is None else _neighbor_reduce(dx, weight, *rest)
    if dweight is None:
        return out
    along = _neighbor_reduce(x, dweight, *rest)
    return along if out is None else out + along


def _neighbor_reduce_vmap(args, in_dims, size):
    if any(dim is not None for dim in in_dims[1:]):
        return loop_batch(_neighbor_reduce, args, in_dims, size)
    return unfold_batch(_neighbor_reduce(fold_batch(args[0], in_dims[0], size), *args[1:]), size)


def _edge_dot_kernel(target: Tensor, source: Tensor, *edges) -> Tensor:
    rowptr, neighbor, edge = edges[:3]
    if not _native.runs(target):
        graph, edge = plain_graph(edges, target.shape[0])
        in_slots = reference.edge_dot(target, source, graph)
        return in_slots if edge is None else torch.empty_like(in_slots).index_copy(0, edge.long(), in_slots)
    target, source = target.contiguous(), source.contiguous()
    out = target.new_empty(neighbor.shape[0])
    _native.call(
        _C.edge_dot,
        target,
        target.data_ptr(),
        source.data_ptr(),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        _native.address(edge),
        out.data_ptr(),
        target.shape[0],
        target.shape[1],
        _native.DTYPES[target.dtype],
        _native.INDICES[rowptr.dtype],
    )
    return out


def _edge_dot_vjp(args, grad, needs):
    target, source, *edges = args
    return (
        _neighbor_reduce(source, grad, *edges, "sum") if needs[0] else None,
        _neighbor_reduce(target, grad, *turn(edges), "sum") if needs[1] else None,
        *(None,) * 6,
    )


def _edge_dot_jvp(args, tangents):
    target, source, *edges = args
    dtarget, dsource, *_ = tangents
    out = None if dtarget is None else _edge_dot(dtarget, source, *edges)
    if dsource is None:
        return out
    along = _edge_dot(target, dsource, *edges)
    return along if out is None else out + along


_neighbor_reduce: Op = Op(
    "neighbor_reduce",
    f"(Tensor x, Tensor? weight, {EDGES}, str reduce) -> Tensor",
    _neighbor_reduce_kernel,
    lambda x, weight, rowptr, *rest: x.new_empty((rowptr.shape[0] - 1, x.shape[1])),
    _neighbor_reduce_vjp,
    _neighbor_reduce_jvp,
    _neighbor_reduce_vmap,
)
_edge_dot: Op = Op(
    "edge_dot",
    f"(Tensor target, Tensor source, {EDGES}) -> Tensor",
    _edge_dot_kernel,
    lambda target, source, rowptr, neighbor, *rest: target.new_empty(neighbor.shape[0]),
    _edge_dot_vjp,
    _edge_dot_jvp,
    lambda args, in_dims, size: loop_batch(_edge_dot, args, in_dims, size),
)


def neighbor_reduce(x: Tensor, graph: GraphBatch, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """``out[i] = reduce over edges e: j -> i of weight[e] * x[j]``, without anything of size [E, F].

    Args:
        x: [N, F] float32, float64 or bfloat16 (accumulated in float32).
        weight: [E], same dtype, in the order of ``graph.col``; None for 1.
        reduce: "sum", or "mean" (the sum over the number of edges that enter); 0 for an isolated node.

    Returns:
        [N, F].

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    check_nodes("neighbor_reduce", "x", x, graph)
    if weight is not None and (weight.shape != (graph.num_edges,) or weight.dtype != x.dtype):
        raise ValueError(
            f"neighbor_reduce: weight must be [{graph.num_edges}] {x.dtype}, got {list(weight.shape)} {weight.dtype}"
        )
    if reduce not in _native.REDUCES:
        raise ValueError(f"neighbor_reduce: reduce must be one of {sorted(_native.REDUCES)}, got {reduce!r}")
    return _neighbor_reduce(x, weight, *edges_of(graph, x, weight), reduce)


def edge_dot(target: Tensor, source: Tensor, graph: GraphBatch) -> Tensor:
    """``out[e] = <target[i], source[j]>`` for every edge e: j -> i; the derivative of neighbor_reduce by its weights.

    Args:
        target, source: [N, F], same dtype.

    Returns:
        [E] in the order of ``graph.col``.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    check_nodes("edge_dot", "target", target, graph)
    check_nodes("edge_dot", "source", source, graph)
    if target.shape != source.shape or target.dtype != source.dtype:
        raise ValueError("edge_dot: target and source must have the same shape and dtype")
    return _edge_dot(target, source, *edges_of(graph, target, source))
