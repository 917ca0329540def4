"""Softmax over the edges that enter a node."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, loop_batch
from graphgen.ops.message_passing._edges import plain_graph
from graphgen.ops.message_passing.segments import segment_broadcast, segment_reduce
from graphgen.ops.reference import message_passing as reference


def _edge_softmax_kernel(logits: Tensor, rowptr: Tensor) -> Tensor:
    if not _native.runs(logits):
        return reference.edge_softmax(logits, plain_graph((rowptr, rowptr.new_empty(logits.shape[0]), None), 0)[0])
    logits = logits.contiguous()
    return _run(_C.edge_softmax, logits, (logits.data_ptr(),), rowptr)


def _run(entry, like: Tensor, pointers: tuple[int, ...], rowptr: Tensor) -> Tensor:
    out = torch.empty_like(like)
    _native.call(
        entry,
        like,
        *pointers,
        rowptr.data_ptr(),
        out.data_ptr(),
        rowptr.shape[0] - 1,
        1 if like.dim() == 1 else like.shape[1],
        _native.DTYPES[like.dtype],
        _native.INDICES[rowptr.dtype],
    )
    return out


def _row_sum(values: Tensor, rowptr: Tensor) -> Tensor:
    """The sum over each edge's row, at that edge."""
    return segment_broadcast(segment_reduce(values, rowptr), rowptr, values.shape[0])


def _edge_softmax_slope_kernel(probability: Tensor, direction: Tensor, rowptr: Tensor) -> Tensor:
    if not _native.runs(probability):
        return probability * (direction - _row_sum(probability * direction, rowptr))
    probability, direction = probability.contiguous(), direction.contiguous()
    return _run(_C.edge_softmax_slope, probability, (probability.data_ptr(), direction.data_ptr()), rowptr)


def _slope_vjp(args, grad, needs):
    probability, direction, rowptr = args
    to_probability = to_direction = None
    if needs[0]:
        along = _row_sum(probability * direction, rowptr), _row_sum(probability * grad, rowptr)
        to_probability = grad * (direction - along[0]) - direction * along[1]
    if needs[1]:
        to_direction = _edge_softmax_slope(probability, grad, rowptr)
    return to_probability, to_direction, None


def _slope_jvp(args, tangents):
    probability, direction, rowptr = args
    dprobability, ddirection, _ = tangents
    out = None if ddirection is None else _edge_softmax_slope(probability, ddirection, rowptr)
    if dprobability is None:
        return out
    along = _row_sum(probability * direction, rowptr), _row_sum(dprobability * direction, rowptr)
    to_probability = dprobability * (direction - along[0]) - probability * along[1]
    return to_probability if out is None else out + to_probability


def _vmap_over_edges(op: Op):
    """A batch dimension becomes more heads."""

    def vmap(args, in_dims, size):
        *tensors, rowptr = args
        if in_dims[-1] is not None:
            return loop_batch(op, args, in_dims, size)
        spread = [
            tensor.unsqueeze(1).expand(-1, size, *tensor.shape[1:]) if dim is None else tensor.movedim(dim, 1)
            for tensor, dim in zip(tensors, in_dims, strict=False)
        ]
        return op(*(tensor.flatten(1) for tensor in spread), rowptr).view(spread[0].shape), 1

    return vmap


_edge_softmax_slope: Op = Op(
    "edge_softmax_slope",
    "(Tensor probability, Tensor direction, Tensor rowptr) -> Tensor",
    _edge_softmax_slope_kernel,
    lambda probability, direction, rowptr: torch.empty_like(probability, memory_format=torch.contiguous_format),
    _slope_vjp,
    _slope_jvp,
    lambda *batch: _vmap_over_edges(_edge_softmax_slope)(*batch),
)
_edge_softmax: Op = Op(
    "edge_softmax",
    "(Tensor logits, Tensor rowptr) -> Tensor",
    _edge_softmax_kernel,
    lambda logits, rowptr: torch.empty_like(logits, memory_format=torch.contiguous_format),
    lambda args, grad, needs: (_edge_softmax_slope(args[2], grad, args[1]), None),
    lambda args, tangents: _edge_softmax_slope(args[2], tangents[0], args[1]),
    lambda *batch: _vmap_over_edges(_edge_softmax)(*batch),
    keeps_result=True,
)


def edge_softmax(logits: Tensor, graph: GraphBatch) -> Tensor:
    """Softmax over the edges that enter each node, per head; differentiable any number of times.

    Shifted by each node's highest logit, so that nothing overflows. A node with a NaN logit, with +inf or with nothing
    but -inf gets NaN on all of its edges, as in torch.softmax; one of several logits that is -inf gets 0.

    Args:
        logits: [E] or [E, H] float32, float64 or bfloat16 (computed in float32), in the order of ``graph.col``.

    Returns:
        The shape of logits.

    Raises:
        ValueError: shapes or devices that do not fit.
    """
    if logits.dim() not in (1, 2) or logits.shape[0] != graph.col.shape[0]:
        raise ValueError(
            f"edge_softmax: logits must be [{graph.num_edges}] or [{graph.num_edges}, H] in the order of "
            f"graph.col, got {list(logits.shape)}"
        )
    rowptr = graph.rowptr
    if logits.device != rowptr.device:
        raise ValueError(f"edge_softmax: logits are on {logits.device}, the graph on {rowptr.device}; move one")
    return _edge_softmax.direct(logits, rowptr) if eager(logits) else _edge_softmax(logits, rowptr)
