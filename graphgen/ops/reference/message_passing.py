"""Message passing in plain torch: what the kernels are tested against, and what other devices and dtypes get."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.reference.dense import activation as activate
from graphgen.ops.reference.dense import activation_derivative


def _rows_of(ptr: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """For every row the first and the last row of its segment, and whether it is in one (if not, itself)."""
    row = torch.arange(rows, device=ptr.device)
    segment = torch.searchsorted(ptr.long(), row, right=True) - 1
    inside = (segment >= 0) & (segment < ptr.numel() - 1)
    at = torch.where(inside, segment, 0)
    bounds = torch.cat([ptr.long(), ptr.long()[-1:]])
    return torch.where(inside, bounds[at], row), torch.where(inside, bounds[at + 1] - 1, row), inside


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.dim() - 1))


def segment_reduce(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.segment_reduce`."""
    if reduce in ("max", "min"):
        return _segment_extreme(src, ptr, reduce)[0]
    lengths = ptr.diff()
    if reduce == "mul":
        first, _, _ = _rows_of(ptr, src.shape[0])
        through = _products_before(src, torch.zeros_like(src), first)[0] * src
        end = torch.where(lengths > 0, ptr[1:] - 1, src.shape[0])
        return torch.cat([through, torch.ones_like(src[:1]) if len(src) else src.new_ones(1, *src.shape[1:])])[end]
    segment = torch.arange(lengths.numel(), device=src.device).repeat_interleave(lengths)
    covered = src[int(ptr[0]) : int(ptr[-1])]
    out = src.new_zeros((lengths.numel(), *src.shape[1:])).index_add(0, segment, covered)
    return _over(out, lengths) if reduce == "mean" else out


def _over(total: Tensor, counts: Tensor) -> Tensor:
    counts = _per_row(counts.clamp(min=1), total).to(total.dtype)
    return total / counts if total.dtype.is_floating_point else total.div(counts, rounding_mode="floor")


def segment_max(src: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.segment_max`."""
    return _segment_extreme(src, ptr, "max")


def segment_min(src: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.segment_min`."""
    return _segment_extreme(src, ptr, "min")


def _segment_extreme(src: Tensor, ptr: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    lengths = ptr.diff()
    segment = torch.arange(lengths.numel(), device=src.device).repeat_interleave(lengths)
    index = (int(ptr[0]) + torch.arange(segment.numel(), device=src.device), segment)
    return _extreme(src, *index, lengths.numel(), reduce)


def _extreme(src: Tensor, row: Tensor, target: Tensor, size: int, reduce: str) -> tuple[Tensor, Tensor]:
    """The largest (smallest) of the given rows of src that go to each target, and which row that is."""
    flat = src.reshape(src.shape[0], prod(src.shape[1:]))
    rows, kind = flat[row].detach(), torch.finfo if src.dtype.is_floating_point else torch.iinfo
    low, how = (kind(src.dtype).min, "amax") if reduce == "max" else (kind(src.dtype).max, "amin")
    to = target.unsqueeze(1).expand_as(rows)
    best = rows.new_full((size, rows.shape[1]), low).scatter_reduce(0, to, rows, how, include_self=False)
    wins = (rows == best[target]) | (rows.isnan() & best[target].isnan())
    named = torch.where(wins, row.unsqueeze(1), src.shape[0])
    nobody = named.new_full(best.shape, src.shape[0])
    arg = nobody.scatter_reduce(0, to, named, "amin")
    return pick(flat, arg).reshape(size, *src.shape[1:]), arg.reshape(size, *src.shape[1:])


def pick(src: Tensor, arg: Tensor) -> Tensor:
    """``out[s, f] = src[arg[s, f], f]``, or 0 where arg is no row of src [R, F]."""
    outside = (arg < 0) | (arg >= src.shape[0])
    return torch.cat([src, src.new_zeros(1, src.shape[1])]).gather(0, torch.where(outside, src.shape[0], arg))


def place(src: Tensor, arg: Tensor, rows: int) -> Tensor:
    """The transpose of :func:`pick`: ``out[arg[s, f], f] = src[s, f]``."""
    outside = (arg < 0) | (arg >= rows)
    return src.new_zeros(rows + 1, src.shape[1]).scatter(0, torch.where(outside, rows, arg), src)[:rows]


def segment_broadcast(src: Tensor, ptr: Tensor, rows: int, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.segment_broadcast`."""
    lengths = ptr.diff()
    if reduce == "mean":
        src = _over(src, lengths)
    covered = src.repeat_interleave(lengths, dim=0)
    before = src.new_zeros((int(ptr[0]), *src.shape[1:]))
    after = src.new_zeros((rows - int(ptr[-1]), *src.shape[1:]))
    return torch.cat([before, covered, after])


def _products_before(src: Tensor, along: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the rows from `first` up to each row, that one left out, and its derivative along `along`.

    A scan by doubling: no quotient, so zeros are no exception, and nothing that torch could not differentiate again.
    """
    rows = torch.arange(src.shape[0], device=src.device)

    def earlier(values: Tensor, distance: int, missing: int) -> Tensor:
        moved = torch.cat([torch.full_like(values[:distance], missing), values[:-distance]])
        return torch.where(_per_row(rows - distance >= first, values), moved, missing)

    value, tangent = earlier(src, 1, 1), earlier(along, 1, 0)
    distance = 1
    while distance < src.shape[0]:
        before = earlier(value, distance, 1)
        tangent = earlier(tangent, distance, 0) * value + before * tangent
        value = before * value
        distance *= 2
    return value, tangent


def _products_around(src: Tensor, along: Tensor, ptr: Tensor) -> tuple[Tensor, ...]:
    first, last, inside = _rows_of(ptr, src.shape[0])
    before = _products_before(src, along, first)
    behind = _products_before(src.flip(0), along.flip(0), src.shape[0] - 1 - last.flip(0))
    return *before, *(part.flip(0) for part in behind), _per_row(inside, src)


def segment_others(src: Tensor, ptr: Tensor) -> Tensor:
    """The product of the other rows of a row's segment; 0 for a row in no segment."""
    before, _, behind, _, inside = _products_around(src, torch.zeros_like(src), ptr)
    return torch.where(inside, before * behind, 0)


def segment_others_along(src: Tensor, along: Tensor, ptr: Tensor) -> Tensor:
    """The derivative of :func:`segment_others` at src along `along`."""
    before, d_before, behind, d_behind, inside = _products_around(src, along, ptr)
    return torch.where(inside, d_before * behind + before * d_behind, 0)


def _spread(index: Tensor, like: Tensor, dim: int) -> Tensor:
    """The index as large as `like`, but for its own length along dim: 1-D counts along dim, others from the front."""
    shape = [1] * (dim % like.dim()) + list(index.shape) if index.dim() == 1 else list(index.shape)
    index = index.reshape(shape + [1] * (like.dim() - len(shape))).long()
    return index.expand([-1 if at == dim % like.dim() else size for at, size in enumerate(like.shape)])


def _check_range(index: Tensor, size: int) -> None:
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
        raise IndexError(f"index: {int(index.min())} to {int(index.max())} is not within [0, {size})")


def _scatter_arguments(src: Tensor, index: Tensor, dim: int, dim_size: int | None) -> tuple[Tensor, int]:
    size = dim_size if dim_size is not None else int(index.max()) + 1 if index.numel() else 0
    _check_range(index, size)
    index = _spread(index, src, dim)
    return index.expand_as(src), size


def scatter(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.scatter`."""
    if reduce in ("max", "min"):
        return _scatter_extreme(src, index, dim, dim_size, reduce)[0]
    index, size = _scatter_arguments(src, index, dim, dim_size)
    shape = list(src.shape)
    shape[dim] = size
    if reduce == "mul":
        return src.new_ones(shape).scatter_reduce(dim, index, src, "prod")
    out = src.new_zeros(shape).scatter_add(dim, index, src)
    if reduce == "mean":
        counts = torch.zeros_like(out).scatter_add(dim, index, torch.ones_like(src)).clamp(min=1)
        out = out / counts if out.dtype.is_floating_point else out.div(counts, rounding_mode="floor")
    return out


def _scatter_extreme(src: Tensor, index: Tensor, dim: int, dim_size: int | None, reduce: str) -> tuple[Tensor, Tensor]:
    index, size = _scatter_arguments(src, index, dim, dim_size)
    length, rest = src.shape[dim], [n for at, n in enumerate(src.shape) if at != dim % src.dim()]
    columns = prod(rest)
    keys = index.movedim(dim, 0).reshape(length, columns) * columns + torch.arange(columns, device=src.device)
    elements = src.movedim(dim, 0).reshape(length * columns)
    row = torch.arange(length * columns, device=src.device)
    values, arg = _extreme(elements, row, keys.flatten(), size * columns, reduce)
    position = arg // max(columns, 1)
    return tuple(part.reshape(size, *rest).movedim(0, dim) for part in (values, position))  # type: ignore[return-value]


def scatter_max(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.scatter_max`."""
    return _scatter_extreme(src, index, dim, dim_size, "max")


def scatter_min(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.scatter_min`."""
    return _scatter_extreme(src, index, dim, dim_size, "min")


def gather(src: Tensor, index: Tensor, dim: int = 0) -> Tensor:
    """See :func:`graphgen.ops.gather`."""
    _check_range(index, src.shape[dim])
    return src.gather(dim, _spread(index, src, dim))


def _messages(x: Tensor, graph: GraphBatch, weight: Tensor | None) -> Tensor:
    """[E, ...] weight[e] * x[j], what the kernels never store; a weight has as many dimensions as it varies over."""
    messages = x[graph.col]
    return messages if weight is None else weight[(..., *(None,) * (messages.dim() - weight.dim()))] * messages


def neighbor_reduce(x: Tensor, graph: GraphBatch, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """See :func:`graphgen.ops.neighbor_reduce`."""
    if reduce in ("max", "min"):
        return _neighbor_extreme(x, graph, weight, reduce)[0]
    out = torch.zeros_like(x).index_add(0, graph.target, _messages(x, graph, weight))
    if reduce == "mean":
        out = out / graph.degree.clamp(min=1).view(-1, *(1,) * (x.dim() - 1)).to(x.dtype)
    return out


def _neighbor_extreme(x: Tensor, graph: GraphBatch, weight: Tensor | None, reduce: str) -> tuple[Tensor, Tensor]:
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
    return _neighbor_extreme(x, graph, weight, "max")


def neighbor_min(x: Tensor, graph: GraphBatch, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.neighbor_min`."""
    return _neighbor_extreme(x, graph, weight, "min")


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
        order = len(terms) - 1
        slot = activation_derivative(z[0], activation, order - (m > 0))
        for n in range(1, order + 1):
            if n != m:
                slot = slot * z[n]
        shape = (types if part == 2 else rows, slot.shape[1])
        out.append(slot.new_zeros(shape).index_add(0, ends[part], slot))
    return tuple(out)


def message_push(
    parts: Sequence[Tensor], edges: Sequence[Tensor | None], rows: int, activation: str
) -> tuple[Tensor, Tensor]:
    """Tangents [K, N, F] and the value, of (target, source, bias) and the tangents of target and source."""
    *z, target_along, source_along = parts
    types = len(parts[2])
    found = [
        message_gradient([z, (target, source, None)], edges, rows, types, activation, (0, 3))
        for target, source in zip(target_along, source_along, strict=True)
    ]
    if not found:
        return torch.zeros_like(target_along), message_gradient([z], edges, rows, types, activation, (0,))[0]
    return torch.stack([tangent for tangent, _ in found]), found[0][1]


def message_pull(
    parts: Sequence[Tensor | None],
    edges: Sequence[Tensor | None],
    rows: int,
    types: int,
    activation: str,
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    """What gradients of that value and of those tangents give to its arguments."""
    *z, target_along, source_along, value_grad, tangent_grad = parts
    assert z[0] is not None and target_along is not None and source_along is not None and tangent_grad is not None
    to_z = list(
        message_gradient([z, (torch.zeros_like(z[0]), None, None)], edges, rows, types, activation, (0, 1, 2))
        if value_grad is None
        else message_gradient([z, (value_grad, None, None)], edges, rows, types, activation, (0, 1, 2))
    )
    along = []
    for target, source, grad in zip(target_along, source_along, tangent_grad, strict=True):
        terms = [z, (target, source, None), (grad, None, None)]
        *more, to_target, to_source = message_gradient(terms, edges, rows, types, activation, (0, 1, 2, 3, 4))
        to_z = [a + b for a, b in zip(to_z, more, strict=True)]
        along.append((to_target, to_source))
    empty = torch.zeros_like(target_along)
    stacked = [torch.stack(part) for part in zip(*along, strict=True)] if along else [empty, empty]
    return tuple([*to_z, *stacked][code] for code in wanted)
