"""Radial basis functions of the lengths of edges, summed over neighbours.

With z = d - c and phi_b = z^b exp(-gamma z^2), the slope of phi_b is b phi_{b-1} - 2 gamma phi_{b+1} by d (with the
other sign by c) and -phi_{b+2} by gamma. So two kernels, the sum of phi_b over a node's edges and its transpose, make
all derivatives of any order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, loop_batch
from graphgen.ops.message_passing._edges import check_nodes, edges_of, sum_of
from graphgen.ops.message_passing.differences import _distance
from graphgen.ops.reference import message_passing as reference


def _rows_call(
    weight: Tensor | None,
    distance: Tensor | None,
    x: Tensor | None,
    rowptr: Tensor,
    neighbor: Tensor | None,
    centers: Tensor,
    gamma: Tensor,
    power: int,
) -> Tensor:
    bases = centers.shape[0]
    rows = rowptr.shape[0] - 1
    centers, gamma = centers.contiguous(), gamma.contiguous()
    out = centers.new_empty((rows, bases))
    _native.call(
        _C.rbf_rows,
        centers,
        _native.address(weight),
        _native.address(distance),
        _native.address(x),
        rowptr.data_ptr(),
        _native.address(neighbor),
        centers.data_ptr(),
        gamma.data_ptr(),
        out.data_ptr(),
        rows,
        bases,
        0 if x is None else x.shape[1],
        power,
        _native.DTYPES[centers.dtype],
        _native.INDICES[rowptr.dtype],
    )
    return out


def _plain_bases(distance: Tensor, centers: Tensor, gamma: Tensor, power: int) -> Tensor:
    z = distance.unsqueeze(-1) - centers
    return z.pow(power) * (-gamma * z.square()).exp()


def _rows_kernel(
    weight: Tensor | None, distance: Tensor, centers: Tensor, gamma: Tensor, rowptr: Tensor, power: int
) -> Tensor:
    if not _native.runs(centers):
        bases = _plain_bases(distance, centers, gamma, power)
        return reference.segment_reduce(bases if weight is None else weight.unsqueeze(-1) * bases, rowptr)
    weight = None if weight is None else weight.contiguous()
    return _rows_call(weight, distance.contiguous(), None, rowptr, None, centers, gamma, power)


def _edges_kernel(rows: Tensor, distance: Tensor, centers: Tensor, gamma: Tensor, rowptr: Tensor, power: int) -> Tensor:
    if not _native.runs(rows):
        spread = reference.segment_broadcast(rows, rowptr, distance.shape[0])
        return (spread * _plain_bases(distance, centers, gamma, power)).sum(-1)
    rows, distance, centers, gamma = rows.contiguous(), distance.contiguous(), centers.contiguous(), gamma.contiguous()
    out = distance.new_empty(distance.shape)
    _native.call(
        _C.rbf_edges,
        rows,
        rows.data_ptr(),
        distance.data_ptr(),
        rowptr.data_ptr(),
        centers.data_ptr(),
        gamma.data_ptr(),
        out.data_ptr(),
        rows.shape[0],
        rows.shape[1],
        power,
        _native.DTYPES[rows.dtype],
        _native.INDICES[rowptr.dtype],
    )
    return out


def _edge_slope(rows: Tensor, distance: Tensor, centers: Tensor, gamma: Tensor, rowptr: Tensor, power: int) -> Tensor:
    """The derivative of ``_rbf_edges`` by distance, element by element."""
    slope = -2 * _rbf_edges(rows * gamma, distance, centers, gamma, rowptr, power + 1)
    return slope + power * _rbf_edges(rows, distance, centers, gamma, rowptr, power - 1) if power else slope


def _row_slope(
    weight: Tensor | None, distance: Tensor, centers: Tensor, gamma: Tensor, rowptr: Tensor, power: int
) -> Tensor:
    """The sum over edges of weight times the derivative of phi by distance."""
    slope = -2 * gamma * _rbf_rows(weight, distance, centers, gamma, rowptr, power + 1)
    return slope + power * _rbf_rows(weight, distance, centers, gamma, rowptr, power - 1) if power else slope


def _form_slopes(weight, rows, rest, needs):
    """Of the sum over e: j -> i and k of weight[e] rows[i, k] phi: by distance, centers and gamma."""
    distance, centers, gamma, rowptr, power = rest
    to_distance = to_centers = to_gamma = None
    if needs[0]:
        to_distance = _edge_slope(rows, *rest)
        to_distance = to_distance if weight is None else weight * to_distance
    if needs[1]:
        to_centers = -(rows * _row_slope(weight, *rest)).sum(0)
    if needs[2]:
        to_gamma = -(rows * _rbf_rows(weight, distance, centers, gamma, rowptr, power + 2)).sum(0)
    return to_distance, to_centers, to_gamma, None, None


def _rows_vjp(args, grad, needs):
    weight, *rest = args
    return (_rbf_edges(grad, *rest) if needs[0] else None, *_form_slopes(weight, grad, rest, needs[1:]))


def _edges_vjp(args, grad, needs):
    rows, *rest = args
    return (_rbf_rows(grad, *rest) if needs[0] else None, *_form_slopes(grad, rows, rest, needs[1:]))


def _rows_jvp(args, tangents):
    weight, *rest = args
    distance, centers, gamma, rowptr, power = rest
    dweight, ddistance, dcenters, dgamma, *_ = tangents
    along = ddistance if weight is None or ddistance is None else weight * ddistance
    return sum_of(
        None if dweight is None else _rbf_rows(dweight, *rest),
        None if along is None else _row_slope(along, *rest),
        None if dcenters is None else -dcenters * _row_slope(weight, *rest),
        None if dgamma is None else -dgamma * _rbf_rows(weight, distance, centers, gamma, rowptr, power + 2),
    )


def _edges_jvp(args, tangents):
    rows, *rest = args
    distance, centers, gamma, rowptr, power = rest
    drows, ddistance, dcenters, dgamma, *_ = tangents
    return sum_of(
        None if drows is None else _rbf_edges(drows, *rest),
        None if ddistance is None else ddistance * _edge_slope(rows, *rest),
        None if dcenters is None else -_edge_slope(rows * dcenters, *rest),
        None if dgamma is None else -_rbf_edges(rows * dgamma, distance, centers, gamma, rowptr, power + 2),
    )


_rbf_rows: Op = Op(
    "rbf_rows",
    "(Tensor? weight, Tensor distance, Tensor centers, Tensor gamma, Tensor rowptr, int power) -> Tensor",
    _rows_kernel,
    lambda weight, distance, centers, gamma, rowptr, power: centers.new_empty((rowptr.shape[0] - 1, centers.shape[0])),
    _rows_vjp,
    _rows_jvp,
    lambda args, in_dims, size: loop_batch(_rbf_rows, args, in_dims, size),
)
_rbf_edges: Op = Op(
    "rbf_edges",
    "(Tensor rows, Tensor distance, Tensor centers, Tensor gamma, Tensor rowptr, int power) -> Tensor",
    _edges_kernel,
    lambda rows, distance, centers, gamma, rowptr, power: distance.new_empty(distance.shape),
    _edges_vjp,
    _edges_jvp,
    lambda args, in_dims, size: loop_batch(_rbf_edges, args, in_dims, size),
)


def rbf_neighbor_sum(x: Tensor, graph: GraphBatch, centers: Tensor, gamma: Tensor) -> Tensor:
    """``out[i, k] = sum over edges e: j -> i of exp(-gamma[k] (|x[i] - x[j]| - centers[k])^2)``, with nothing of size
    [E, K] stored; differentiable any number of times by x, centers and gamma.

    The expansion of distances of SchNet (Schuett et al., 2017, section 4.2), summed over neighbours. Where two nodes
    coincide, as on a self-loop, the derivatives of their distance are defined as 0 (see :func:`edge_distance`).

    Args:
        x: [N, F] float32, float64 or bfloat16 (computed in float32), in any unit of length.
        centers: [K], same dtype and unit.
        gamma: [K], same dtype, in 1 / unit^2.

    Returns:
        [N, K]; 0 for an isolated node.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    check_nodes("rbf_neighbor_sum", "x", x, graph)
    if centers.dim() != 1 or centers.shape != gamma.shape:
        raise ValueError(
            f"rbf_neighbor_sum: centers and gamma must be [K] each, got {list(centers.shape)} and {list(gamma.shape)}"
        )
    dtype = x.dtype
    if centers.dtype != dtype or gamma.dtype != dtype or centers.device != x.device or gamma.device != x.device:
        raise ValueError(f"rbf_neighbor_sum: centers and gamma must be {dtype} on {x.device}, as x is")
    if dtype == torch.bfloat16:
        return rbf_neighbor_sum(x.float(), graph, centers.float(), gamma.float()).to(dtype)
    if eager(x, centers, gamma) and not x.is_cuda and _native.runs(x):
        # In one call, which takes each distance as it needs it.
        return _rows_call(None, None, x.contiguous(), graph.rowptr, graph.col, centers, gamma, 0)
    return _rbf_rows(None, _distance(x, *edges_of(graph, x)), centers, gamma, graph.rowptr, 0)
