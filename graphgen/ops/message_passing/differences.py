"""Lengths of edges, and the pair of linear maps that all their derivatives are made of.

``<a_i - a_j, b_i - b_j>`` per edge and the graph Laplacian with weights on its edges are each other's transposes. Both
take differences before they multiply, so nodes that are close to each other and far from the origin lose no digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, loop_batch
from graphgen.ops.message_passing._edges import EDGES, bilinear_jvp, check_nodes, edges_of, plain_graph
from graphgen.ops.reference import message_passing as reference


def _dots(a: Tensor, b: Tensor, edges: tuple, root: bool) -> Tensor:
    rowptr, neighbor = edges[0], edges[1]
    a, b = a.contiguous(), b.contiguous()
    out = a.new_empty(neighbor.shape[0])
    _native.call(
        _C.edge_difference_dot,
        a,
        a.data_ptr(),
        b.data_ptr(),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        out.data_ptr(),
        a.shape[0],
        a.shape[1],
        _native.DTYPES[a.dtype],
        _native.INDICES[rowptr.dtype],
        root,
    )
    return out


def _difference_dot_kernel(a: Tensor, b: Tensor, *edges) -> Tensor:
    if not _native.runs(a):
        graph = plain_graph(edges, a.shape[0])[0]
        return ((a[graph.target] - a[graph.col]) * (b[graph.target] - b[graph.col])).sum(-1)
    return _dots(a, b, edges, False)


def _distance_kernel(x: Tensor, *edges) -> Tensor:
    if not _native.runs(x):
        return reference.edge_distance(x, plain_graph(edges, x.shape[0])[0])
    return _dots(x, x, edges, True)


def _laplacian_kernel(weight: Tensor, x: Tensor, *edges) -> Tensor:
    if not _native.runs(x):
        graph = plain_graph(edges, x.shape[0])[0]
        flow = weight.unsqueeze(-1) * (x[graph.target] - x[graph.col])
        return torch.zeros_like(x).index_add(0, graph.target, flow).index_add(0, graph.col, -flow)
    weight, x = weight.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    rowptr, neighbor, edge, rowptr_t, neighbor_t, edge_t = edges
    _native.call(
        _C.edge_laplacian,
        x,
        weight.data_ptr(),
        x.data_ptr(),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        _native.address(edge),
        rowptr_t.data_ptr(),
        neighbor_t.data_ptr(),
        _native.address(edge_t),
        out.data_ptr(),
        x.shape[0],
        x.shape[1],
        _native.DTYPES[x.dtype],
        _native.INDICES[rowptr.dtype],
    )
    return out


def _difference_dot_vjp(args, grad, needs):
    a, b, *edges = args
    return (
        _laplacian(grad, b, *edges) if needs[0] else None,
        _laplacian(grad, a, *edges) if needs[1] else None,
        *(None,) * 6,
    )


def _laplacian_vjp(args, grad, needs):
    weight, x, *edges = args
    return (
        _difference_dot(grad, x, *edges) if needs[0] else None,
        _laplacian(weight, grad, *edges) if needs[1] else None,
        *(None,) * 6,
    )


def _over(values: Tensor, distance: Tensor) -> Tensor:
    """values / distance, and 0 at distance 0, in its derivatives too."""
    apart = distance > 0
    return torch.where(apart, values / torch.where(apart, distance, 1.0), 0.0)


def _distance_vjp(args, grad, needs):
    x, *edges, distance = args
    return _laplacian(_over(grad, distance), x, *edges), *(None,) * 6


def _distance_jvp(args, tangents):
    x, *edges, distance = args
    return _over(_difference_dot(tangents[0], x, *edges), distance)


def _fake_edges(x, rowptr, neighbor, *rest):
    return x.new_empty(neighbor.shape[0])


_difference_dot: Op = Op(
    "edge_difference_dot",
    f"(Tensor a, Tensor b, {EDGES}) -> Tensor",
    _difference_dot_kernel,
    lambda a, b, *edges: _fake_edges(a, *edges),
    _difference_dot_vjp,
    lambda args, tangents: bilinear_jvp(_difference_dot, args, tangents),
    lambda args, in_dims, size: loop_batch(_difference_dot, args, in_dims, size),
)
_laplacian: Op = Op(
    "edge_laplacian",
    f"(Tensor weight, Tensor x, {EDGES}) -> Tensor",
    _laplacian_kernel,
    lambda weight, x, *edges: torch.empty_like(x, memory_format=torch.contiguous_format),
    _laplacian_vjp,
    lambda args, tangents: bilinear_jvp(_laplacian, args, tangents),
    lambda args, in_dims, size: loop_batch(_laplacian, args, in_dims, size),
)
_distance: Op = Op(
    "edge_distance",
    f"(Tensor x, {EDGES}) -> Tensor",
    _distance_kernel,
    _fake_edges,
    _distance_vjp,
    _distance_jvp,
    lambda args, in_dims, size: loop_batch(_distance, args, in_dims, size),
    keeps_result=True,
)


def edge_distance(x: Tensor, graph: GraphBatch) -> Tensor:
    """``out[e] = |x[i] - x[j]|`` for every edge e: j -> i; differentiable any number of times.

    Where two nodes coincide, as on a self-loop, the distance has a corner: all its derivatives are defined as 0 there.

    Args:
        x: [N, F] float32, float64 or bfloat16 (computed in float32).

    Returns:
        [E] in the order of ``graph.col``.

    Raises:
        ValueError: shapes or devices that do not fit.
    """
    check_nodes("edge_distance", "x", x, graph)
    if eager(x):
        return _distance.direct(x, graph.rowptr, graph.col, None)
    return _distance(x, *edges_of(graph, x))
