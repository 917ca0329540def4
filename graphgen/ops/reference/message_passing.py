"""Message passing in plain torch: what the kernels are tested against, and what other devices and dtypes get."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.reference.dense import activation as activate
from graphgen.ops.reference.dense import activation_derivative


def segment_reduce(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.segment_reduce`."""
    lengths = ptr.diff()
    segment = torch.arange(lengths.numel(), device=src.device).repeat_interleave(lengths)
    covered = src[int(ptr[0]) : int(ptr[-1])]
    out = src.new_zeros((lengths.numel(), *src.shape[1:])).index_add(0, segment, covered)
    if reduce == "mean":
        out = out / lengths.clamp(min=1).view(-1, *(1,) * (src.dim() - 1)).to(src.dtype)
    return out


def segment_broadcast(src: Tensor, ptr: Tensor, rows: int, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.segment_broadcast`."""
    lengths = ptr.diff()
    if reduce == "mean":
        src = src / lengths.clamp(min=1).view(-1, *(1,) * (src.dim() - 1)).to(src.dtype)
    covered = src.repeat_interleave(lengths, dim=0)
    before = src.new_zeros((int(ptr[0]), *src.shape[1:]))
    after = src.new_zeros((rows - int(ptr[-1]), *src.shape[1:]))
    return torch.cat([before, covered, after])


def _messages(x: Tensor, graph: GraphBatch, weight: Tensor | None) -> Tensor:
    """[E, ...] weight[e] * x[j], what the kernels never store; a weight has as many dimensions as it varies over."""
    messages = x[graph.col]
    return messages if weight is None else weight[(..., *(None,) * (messages.dim() - weight.dim()))] * messages


def neighbor_reduce(x: Tensor, graph: GraphBatch, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.neighbor_reduce`."""
    if reduce in ("max", "min"):
        return _extreme(x, graph, weight, reduce)[0]
    out = torch.zeros_like(x).index_add(0, graph.target, _messages(x, graph, weight))
    if reduce == "mean":
        out = out / graph.degree.clamp(min=1).view(-1, *(1,) * (x.dim() - 1)).to(x.dtype)
    return out


def _extreme(x: Tensor, graph: GraphBatch, weight: Tensor | None, reduce: str) -> tuple[Tensor, Tensor]:
    messages = _messages(x, graph, weight)
    row = graph.target.long().view(-1, *(1,) * (x.dim() - 1)).expand_as(messages)
    extreme = torch.zeros_like(x).scatter_reduce(
        0, row, messages.detach(), "amax" if reduce == "max" else "amin", include_self=False
    )
    wins = (messages == extreme[graph.target]) | messages.isnan()
    edge = torch.arange(graph.num_edges, device=x.device).view(-1, *(1,) * (x.dim() - 1))
    none = torch.full_like(x, graph.num_edges, dtype=torch.int64)
    arg = none.scatter_reduce(0, row, torch.where(wins, edge, graph.num_edges), "amin")
    with_none = torch.cat([messages, messages.new_zeros((1, *x.shape[1:]))])
    return with_none.gather(0, arg), arg


def neighbor_max(x: Tensor, graph: GraphBatch, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.neighbor_max`."""
    return _extreme(x, graph, weight, "max")


def neighbor_min(x: Tensor, graph: GraphBatch, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.neighbor_min`."""
    return _extreme(x, graph, weight, "min")


def edge_dot(target: Tensor, source: Tensor, graph: GraphBatch) -> Tensor:
    """See :func:`graphgen.ops.edge_dot`."""
    return (target[graph.target] * source[graph.col]).sum(-1)


def edge_softmax(logits: Tensor, graph: GraphBatch) -> Tensor:
    """See :func:`graphgen.ops.edge_softmax`."""
    target, shape = graph.target.long(), (graph.num_nodes, *logits.shape[1:])
    index = target.view(-1, *(1,) * (logits.dim() - 1)).expand_as(logits)
    # The result does not depend on the shift, so neither do its derivatives.
    highest = logits.new_full(shape, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
    terms = torch.exp(logits - highest[target])
    return terms / logits.new_zeros(shape).index_add(0, target, terms)[target]


def neighbor_attention(
    q: Tensor, k: Tensor, v: Tensor, graph: GraphBatch, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """See :func:`graphgen.ops.neighbor_attention`."""
    if scale is None:
        scale = q.shape[2] ** -0.5 if q.shape[2] else 1.0
    logits = edge_dot(q, k, graph) * scale
    return neighbor_reduce(v, graph, edge_softmax(logits if bias is None else logits + bias, graph))


def edge_distance(x: Tensor, graph: GraphBatch) -> Tensor:
    """See :func:`graphgen.ops.edge_distance`."""
    square = (x[graph.target] - x[graph.col]).square().sum(-1)
    apart = square > 0
    # Not sqrt where it is 0: its slope there is infinite.
    return torch.where(apart, square.where(apart, torch.ones_like(square)).sqrt(), torch.zeros_like(square))


def rbf_neighbor_sum(x: Tensor, graph: GraphBatch, centers: Tensor, gamma: Tensor) -> Tensor:
    """See :func:`graphgen.ops.rbf_neighbor_sum`. Builds the [E, K] basis functions the kernel never stores."""
    bases = torch.exp(-gamma * (edge_distance(x, graph).unsqueeze(-1) - centers).square())
    return x.new_zeros((graph.num_nodes, centers.shape[0])).index_add(0, graph.target, bases)


def message_sum(
    target: Tensor, source: Tensor, edge_bias: Tensor, graph: GraphBatch, activation: str = "silu"
) -> Tensor:
    """See :func:`graphgen.ops.message_sum`. Builds the [E, F] messages the kernel never stores."""
    kind = graph.edge_attr if graph.edge_attr is not None else torch.zeros_like(graph.col)
    messages = activate(target[graph.target] + source[graph.col] + edge_bias[kind], activation)
    return torch.zeros_like(target).index_add(0, graph.target, messages)


def message_gradient(
    terms: Sequence[Sequence[Tensor | None]],
    edges: Sequence[Tensor | None],
    rows: int,
    types: int,
    activation: str,
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    """The derivatives by which message_sum is differentiated, see graphgen/ops/message_passing/messages.py."""
    rowptr, source, kind = edges[:3]
    assert rowptr is not None and source is not None
    target = torch.arange(rows, device=rowptr.device).repeat_interleave(rowptr.diff())
    ends = (target, source, torch.zeros_like(source) if kind is None else kind)
    z = [
        functools.reduce(torch.add, [part[index] for part, index in zip(term, ends, strict=True) if part is not None])
        for term in terms
    ]
    out = []
    for m, part in (divmod(code, 3) for code in wanted):
        slot = activation_derivative(z[0], activation, len(terms) - 1 - (m > 0))
        for n, factor in enumerate(z):
            if n not in (0, m):
                slot = slot * factor
        shape = (types if part == 2 else rows, slot.shape[1])
        out.append(slot.new_zeros(shape).index_add(0, ends[part], slot))
    return tuple(out)
