"""A whole message layer after its projections, and its derivatives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, Standin, differentiates, eager, fold_batch, unfold_batch
from graphgen.ops._products import Products
from graphgen.ops.dense import activation_push
from graphgen.ops.message_passing._edges import EDGES, check_nodes
from graphgen.ops.message_passing.scatter import gather
from graphgen.ops.message_passing.segments import segment_reduce
from graphgen.ops.reference import message_passing as reference

_CHUNK = 256  # GG_MESSAGE_CHUNK of csrc/graphgen.h

# A term z of a message sum has three parts, each of which may be absent: one per target node, one per source node and
# one per edge type. message_sum is the derivative by the target's part of z_0 of the family of products of order 0, see
# graphgen/ops/_products.py; all derivatives wanted of an order are found in one sweep over the edges by target and one
# by source.
TARGET, SOURCE, BIAS = range(3)
_NONE = (0,) * 9


def _first(parts: Iterable[Tensor | None]) -> Tensor:
    return next(part for part in parts if part is not None)


def _kernel(order: int):
    count = 3 * (order + 1)

    def kernel(*args) -> tuple[Tensor, ...]:
        parts, edges, (rows, features, types, activation, wanted) = (
            args[:count],
            args[count : count + 6],
            args[count + 6 :],
        )
        like = _first(parts)
        if not _native.runs(like):
            terms, _ = _products.terms(order, args)
            return reference.message_gradient(terms, edges, rows, types, activation, wanted)
        # Contiguous copies live in this tuple until the engine is done with their addresses.
        parts = tuple(part if part is None or part.is_contiguous() else part.contiguous() for part in parts)
        addresses = [0] * 24
        for code, part in enumerate(parts):
            if part is not None:
                addresses[code] = part.data_ptr()
        outputs, by_type = [], 0
        for code in wanted:
            is_bias = code % 3 == BIAS
            out = like.new_empty((types if is_bias else rows, features))
            addresses[12 + code] = out.data_ptr()
            outputs.append(out)
            by_type += is_bias
        partial = None
        if by_type:
            wide = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
            partial = like.new_empty((-(-rows // _CHUNK), by_type, types, features), dtype=wide)
        _native.call(
            _C.message_sum,
            like,
            addresses,
            [0 if edge is None else edge.data_ptr() for edge in edges],
            0 if partial is None else partial.data_ptr(),
            rows,
            features,
            types,
            order,
            _native.ACTIVATIONS[activation],
            _native.DTYPES[like.dtype],
            _native.INDICES[edges[0].dtype],
        )
        return tuple(outputs)

    return kernel


def _vmap(order: int):
    count = 3 * (order + 1)

    def vmap(args, in_dims, size):
        folded = [fold_batch(part, dim, size) for part, dim in zip(args[:count], in_dims, strict=False)]
        edges, (rows, features, *rest) = args[count : count + 6], args[count + 6 :]
        out = _products.ops[order](*folded, *edges, rows, size * features, *rest)
        return tuple(unfold_batch(part, size)[0] for part in out), (1,) * len(out)

    return vmap


def _fake(order: int):
    def fake(*args) -> tuple[Tensor, ...]:
        rows, features, types, _activation, wanted = args[-5:]
        like = _first(args)
        return tuple(like.new_empty((types if code % 3 == BIAS else rows, features)) for code in wanted)

    return fake


_REST = EDGES.replace("edge", "type") + ", SymInt rows, SymInt features, SymInt types, str activation"


def _schema(order: int) -> str:
    parts = ", ".join(f"Tensor? target{m}, Tensor? source{m}, Tensor? bias{m}" for m in range(order + 1))
    results = "(" + ", ".join(["Tensor"] * 3 * (order + 1)) + ")"
    return f"({parts}, {_REST}, int[] wanted) -> {results}"


def _make(order: int, rules: dict[str, Any]) -> Op:
    return Op(
        f"message_sum_{order}",
        _schema(order),
        _kernel(order),
        _fake(order),
        vmap=_vmap(order),
        chooses=True,
        **rules,
    )


# ---- value and tangents together ------------------------------------------------------------------------------------

_MOVING = "Tensor target, Tensor source, Tensor bias, Tensor target_along, Tensor source_along"
_NODES_ARE_ROWS = (0,) * 4


def _push_kernel(*args) -> tuple[Tensor, Tensor]:
    parts, edges, (rows, features, _types, activation) = args[:5], args[5:11], args[11:]
    like, count = parts[0], parts[3].shape[0]
    if not _native.runs(like):
        return reference.message_push(parts, edges, rows, activation)
    parts = tuple(part.contiguous() for part in parts)
    tangent, value = like.new_empty((count, rows, features)), like.new_empty((rows, features))
    _native.call(
        _C.message_push,
        like,
        [*(part.data_ptr() for part in parts), value.data_ptr(), tangent.data_ptr()],
        [_native.address(edge) for edge in edges[:3]],
        _NODES_ARE_ROWS,
        rows,
        rows,
        rows,
        features,
        count,
        _native.ACTIVATIONS[activation],
        _native.DTYPES[like.dtype],
        _native.INDICES[edges[0].dtype],
    )
    return tangent, value


def _push_vmap(args, in_dims, size):
    folded = [fold_batch(part, dim, size) for part, dim in zip(args[:5], in_dims, strict=False)]
    edges, (rows, features, *rest) = args[5:11], args[11:]
    tangent, value = _products.push(*folded, *edges, rows, size * features, *rest)
    return (unfold_batch(tangent, size)[0], unfold_batch(value, size)[0]), (2, 1)


def _make_push(rules: dict[str, Any]) -> Op:
    return Op(
        "message_push",
        f"({_MOVING}, {_REST}) -> (Tensor, Tensor)",
        _push_kernel,
        lambda *args: (torch.empty_like(args[3]), torch.empty_like(args[0])),
        vmap=_push_vmap,
        **rules,
    )


def _pull_kernel(*args) -> tuple[Tensor, ...]:
    parts, edges, (rows, features, types, activation, wanted) = args[:7], args[7:13], args[13:]
    like, count = parts[0], parts[6].shape[0]
    if not _native.runs(like):
        return reference.message_pull(parts, edges, rows, types, activation, wanted)
    parts = tuple(None if part is None else part.contiguous() for part in parts)
    shapes = [(rows, features), (rows, features), (types, features), (count, rows, features), (count, rows, features)]
    outputs = [like.new_empty(shapes[code]) for code in wanted]
    addresses = [0] * 5
    for code, out in zip(wanted, outputs, strict=True):
        addresses[code] = out.data_ptr()
    partial = None
    if BIAS in wanted:
        wide = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
        partial = like.new_empty((-(-rows // _CHUNK), types, features), dtype=wide)
    _native.call(
        _C.message_pull,
        like,
        [_native.address(part) for part in parts],
        addresses,
        [_native.address(edge) for edge in edges],
        _native.address(partial),
        rows,
        features,
        types,
        count,
        _native.ACTIVATIONS[activation],
        _native.DTYPES[like.dtype],
        _native.INDICES[edges[0].dtype],
    )
    return tuple(outputs)


def _pull_vmap(args, in_dims, size):
    folded = [fold_batch(part, dim, size) for part, dim in zip(args[:7], in_dims, strict=False)]
    edges, (rows, features, *rest) = args[7:13], args[13:]
    out = _products.pull(*folded, *edges, rows, size * features, *rest)
    return tuple(unfold_batch(part, size)[0] for part in out), tuple(part.dim() - 1 for part in out)


def _pull_fake(*args) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(args[code], memory_format=torch.contiguous_format) for code in args[-1])


def _make_pull(rules: dict[str, Any]) -> Op:
    return Op(
        "message_pull",
        f"({_MOVING}, Tensor? value_grad, Tensor tangent_grad, {_REST}, int[] wanted) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor)",
        _pull_kernel,
        _pull_fake,
        vmap=_pull_vmap,
        chooses=True,
        **rules,
    )


_products: Products = Products("message_sum", 3, 2, _make, _make_push, _make_pull)


def message_sum(
    target: Tensor, source: Tensor, edge_bias: Tensor, graph: GraphBatch, activation: str = "silu"
) -> Tensor:
    """``out[i] = sum over edges e: j -> i of act(target[i] + source[j] + edge_bias[type(e)])``.

    One layer of message passing after its projections: ``W2 act(W1 [v_i; v_j; e])`` needs no product per edge, since
    W1 splits by what it multiplies and W2 moves behind the sum. Nothing of size [E, F] is stored, in the derivatives
    neither; these are provided up to the third of the activation (a gradient of a gradient of a tangent).

    Args:
        target, source: [N, F] float32, float64 or bfloat16 (accumulated in float32).
        edge_bias: [T, F], same dtype, one row per edge type; T >= ``graph.num_edge_types``.
        graph: edge types are its 1-D integer ``edge_attr``; without one every edge is of type 0.
        activation: "silu" or "tanh".

    Returns:
        [N, F]; an isolated node gets 0.

    Raises:
        IndexError: an edge type has no row in edge_bias.
        ValueError: shapes, dtypes or devices that do not fit.
    """
    if isinstance(target, Standin):
        return target.message_sum(source, edge_bias, graph, activation)
    check_messages(target, source, edge_bias, graph, activation)
    edges = _typed_edges(graph)
    if eager(target, source, edge_bias) and _native.runs(target):
        return _layer(target, source, edge_bias, graph, activation)
    arguments = (target, source, edge_bias, *edges)
    turned = _typed_edges(graph.transpose) if differentiates(target, source, edge_bias) else (None, None, None)
    return _products.ops[0](*arguments, *turned, *target.shape, edge_bias.shape[0], activation, (TARGET,))[0]


def check_messages(target: Tensor, source: Tensor, edge_bias: Tensor, graph: GraphBatch, activation: str) -> None:
    """Refuse what :func:`message_sum` does not take."""
    check_nodes("message_sum", "target", target, graph)
    check_nodes("message_sum", "source", source, graph)
    if activation not in _native.ACTIVATIONS:
        raise ValueError(f"message_sum: expected one of {sorted(_native.ACTIVATIONS)}, got {activation!r}")
    if not target.shape == source.shape or edge_bias.dim() != 2 or edge_bias.shape[1] != target.shape[1]:
        raise ValueError(
            f"message_sum: target {list(target.shape)}, source {list(source.shape)} and edge_bias "
            f"{list(edge_bias.shape)} must share their features"
        )
    if not target.dtype == source.dtype == edge_bias.dtype:
        raise ValueError("message_sum: target, source and edge_bias must have one dtype")
    types = edge_bias.shape[0]
    if types < (graph.num_edge_types or 1):
        raise IndexError(f"message_sum: edge_bias has {types} rows for {graph.num_edge_types or 1} edge types")


def message_push(
    parts: tuple[Tensor, Tensor, Tensor], along: tuple[Tensor, Tensor], graph: GraphBatch, activation: str
) -> tuple[Tensor, Tensor]:
    """message_sum [N, F] of (target, source, edge_bias) and its derivatives [K, N, F] along K > 0 changes [K, N, F] of
    target and of source, in one sweep. A tangent's bits are those it has alone.
    """
    edges, turned = _typed_edges(graph), (None, None, None)
    if differentiates(*parts, *along):
        turned = _typed_edges(graph.transpose)  # type: ignore[assignment]
    tangent, value = _products.push(*parts, *along, *edges, *turned, *parts[0].shape, len(parts[2]), activation)
    return value, tangent


def push_messages(parts, along, graph: GraphBatch, activation: str) -> tuple[Tensor, Tensor]:
    """message_push where nothing asks for derivatives: tangents and value."""
    edges = (*_typed_edges(graph), None, None, None)
    return _products.push.direct(*parts, *along, *edges, *parts[0].shape, len(parts[2]), activation)


def pull_messages(parts, along, grads, graph: GraphBatch, activation: str, wanted) -> tuple[Tensor, ...]:
    """What gradients of the value [N, F], or None, and of the tangents [K, N, F] give back to parts and along."""
    shape = (*parts[0].shape, len(parts[2]))
    return _products.pull.direct(*parts, *along, *grads, *_both_ways(graph), *shape, activation, wanted)


def pull_value(parts, grad: Tensor, graph: GraphBatch, activation: str, wanted) -> tuple[Tensor, ...]:
    """What a gradient of the value alone gives back to parts."""
    shape = (*parts[0].shape, len(parts[2]))
    return _products.ops[1].direct(*parts, grad, None, None, *_both_ways(graph), *shape, activation, wanted)


class Rows(NamedTuple):
    """Rows of tangents that are not those of the nodes; int32 or int64 as the graph's.

    Attributes:
        home: [R] the node whose edges a row has.
        own: [R] the row of the tangents of target that is this row's, or -1.
        first: [R + 1] boundaries of what follows.
        source: for every slot of every row, the row of the tangents of source at its other end, or -1.
    """

    home: Tensor
    own: Tensor
    first: Tensor
    source: Tensor


def message_tangents(
    parts: tuple[Tensor, Tensor, Tensor],
    along: tuple[Tensor, Tensor],
    rows: Rows,
    graph: GraphBatch,
    activation: str,
) -> Tensor:
    """[K, R, F] the tangents of message_push on these rows, from those [K, ., F] of target and of source.

    Of one row alone, every row is that one. Differentiated, this is made of other ops and stores an array by slot.
    """
    edges = _typed_edges(graph)
    if not eager(*parts, *along) or not _native.runs(parts[0]):
        return _tangents_by_slot(parts, along, rows, edges, activation)
    parts, along = tuple(part.contiguous() for part in parts), tuple(part.contiguous() for part in along)  # type: ignore
    count, features = along[0].shape[0], along[0].shape[2]
    out = along[0].new_empty((count, rows.home.shape[0], features))
    _native.call(
        _C.message_push,
        out,
        [*(part.data_ptr() for part in (*parts, *along)), 0, out.data_ptr()],
        [_native.address(edge) for edge in edges],
        [index.data_ptr() for index in rows],
        out.shape[1],
        along[0].shape[1],
        along[1].shape[1],
        features,
        count,
        _native.ACTIVATIONS[activation],
        _native.DTYPES[out.dtype],
        _native.INDICES[edges[0].dtype],
    )
    return out


def _tangents_by_slot(parts, along, rows: Rows, edges, activation: str) -> Tensor:
    rowptr, neighbor, kind = edges
    row = torch.arange(rows.home.shape[0], device=neighbor.device).repeat_interleave(rows.first.diff())
    slot = torch.arange(row.shape[0], device=row.device) - rows.first[row] + rowptr[rows.home[row]]
    z = gather(parts[0], rows.home[row]) + gather(parts[1], neighbor[slot])
    z = z + (gather(parts[2], kind[slot]) if kind is not None else parts[2][:1])
    moved = pick_tangents(along[0], rows.own[row]) + pick_tangents(along[1], rows.source)
    _, tangent = activation_push(z, moved, activation)
    sums = segment_reduce(tangent.movedim(0, 1).flatten(1), rows.first)
    return sums.unflatten(1, tangent.shape[::2]).movedim(1, 0)


def pick_tangents(tangents: Tensor, index: Tensor) -> Tensor:
    """[K, R, F] the rows with these indices of tangents [K, ., F]: 0 for -1, and of one row alone always that one."""
    if tangents.shape[1] == 1:
        index = index.clamp(max=0)
    missing = tangents.shape[1]
    by_row = tangents.movedim(0, 1).flatten(1)
    padded = torch.cat([by_row, by_row.new_zeros((1, by_row.shape[1]))])
    return gather(padded, torch.where(index < 0, missing, index)).unflatten(1, tangents.shape[::2]).movedim(1, 0)


def _layer(target: Tensor, source: Tensor, edge_bias: Tensor, graph: GraphBatch, activation: str) -> Tensor:
    """The op of order 0 without its generality, which on one molecule would cost more than the sums."""
    target, source, edge_bias = target.contiguous(), source.contiguous(), edge_bias.contiguous()
    out = torch.empty_like(target)
    edges, index = graph.shared("typed_addresses", lambda: _addresses(_typed_edges(graph)))
    _native.call(
        _C.message_sum,
        target,
        [target.data_ptr(), source.data_ptr(), edge_bias.data_ptr(), *_NONE, out.data_ptr(), *_NONE, 0, 0],
        edges,
        0,
        *target.shape,
        edge_bias.shape[0],
        0,
        _native.ACTIVATIONS[activation],
        _native.DTYPES[target.dtype],
        index,
    )
    return out


def _addresses(edges: tuple[Tensor, Tensor, Tensor | None]) -> tuple[list[int], int]:
    return [*(_native.address(edge) for edge in edges), 0, 0, 0], _native.INDICES[edges[0].dtype]


def _both_ways(graph: GraphBatch) -> tuple[Tensor | None, ...]:
    return (*_typed_edges(graph), *_typed_edges(graph.transpose))


def _typed_edges(graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """(rowptr, col, type or None), all of one dtype."""
    kind = graph.edge_attr
    if kind is None:
        return graph.rowptr, graph.col, None
    if kind.dim() != 1 or kind.dtype.is_floating_point:
        raise ValueError("message_sum: graph.edge_attr must be 1-D integers, the type of each edge")
    return graph.rowptr, graph.col, graph.shared("edge_types", lambda: kind.to(graph.col.dtype))
