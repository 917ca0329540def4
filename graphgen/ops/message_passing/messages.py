"""A whole message layer after its projections, and its derivatives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, Standin, differentiates, eager, fold_batch, unfold_batch
from graphgen.ops._products import Products
from graphgen.ops.message_passing._edges import EDGES, check_nodes
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


def _kernel(order: int, mixed: bool):
    count = 3 * (order + 1 + mixed)

    def kernel(*args) -> tuple[Tensor, ...]:
        parts, edges, (rows, features, types, activation, wanted) = (
            args[:count],
            args[count : count + 6],
            args[count + 6 :],
        )
        like = _first(parts)
        if not _native.runs(like):
            terms, _ = _products.terms(order + mixed, args)
            return reference.message_gradient(terms, edges, rows, types, activation, wanted, mixed)
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
            mixed,
            _native.ACTIVATIONS[activation],
            _native.DTYPES[like.dtype],
            _native.INDICES[edges[0].dtype],
        )
        return tuple(outputs)

    return kernel


def _vmap(order: int, mixed: bool):
    count = 3 * (order + 1 + mixed)

    def vmap(args, in_dims, size):
        folded = [fold_batch(part, dim, size) for part, dim in zip(args[:count], in_dims, strict=False)]
        edges, (rows, features, *rest) = args[count : count + 6], args[count + 6 :]
        op = _products.mixed if mixed else _products.ops[order]
        out = op(*folded, *edges, rows, size * features, *rest)
        return tuple(unfold_batch(part, size)[0] for part in out), (1,) * len(out)

    return vmap


def _fake(order: int):
    def fake(*args) -> tuple[Tensor, ...]:
        rows, features, types, _activation, wanted = args[-5:]
        like = _first(args)
        return tuple(like.new_empty((types if code % 3 == BIAS else rows, features)) for code in wanted)

    return fake


def _schema(order: int, mixed: bool) -> str:
    parts = ", ".join(f"Tensor? target{m}, Tensor? source{m}, Tensor? bias{m}" for m in range(order + 1 + mixed))
    edges = EDGES.replace("edge", "type")
    results = "(" + ", ".join(["Tensor"] * 3 * (order + 1)) + ")"
    return f"({parts}, {edges}, SymInt rows, SymInt features, SymInt types, str activation, int[] wanted) -> {results}"


def _make(order: int, mixed: bool, rules: dict[str, Any]) -> Op:
    return Op(
        "message_sum_mixed" if mixed else f"message_sum_{order}",
        _schema(order, mixed),
        _kernel(order, mixed),
        _fake(order),
        vmap=_vmap(order, mixed),
        chooses=True,
        **rules,
    )


_products = Products("message_sum", 3, _make)


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
    edges = _typed_edges(graph)
    if eager(target, source, edge_bias) and _native.runs(target):
        return _layer(target, source, edge_bias, graph, activation)
    arguments = (target, source, edge_bias, *edges)
    turned = _typed_edges(graph.transpose) if differentiates(target, source, edge_bias) else (None, None, None)
    return _products.ops[0](*arguments, *turned, *target.shape, types, activation, (TARGET,))[0]


def message_tangent(
    parts: tuple[Tensor, Tensor, Tensor], along: tuple[Tensor, Tensor], graph: GraphBatch, activation: str
) -> Tensor:
    """[N, F] the derivative of message_sum of (target, source, edge_bias) along changes of target and source."""
    return _order_1(parts, along, graph, activation, (TARGET,))[0]


def message_pushed(
    parts: tuple[Tensor, Tensor, Tensor], along: tuple[Tensor, Tensor], graph: GraphBatch, activation: str
) -> tuple[Tensor, Tensor]:
    """message_sum and that derivative, in one sweep."""
    tangent, value = _order_1(parts, along, graph, activation, (TARGET, 3 + TARGET))
    return value, tangent


def _order_1(parts, along, graph: GraphBatch, activation: str, wanted: tuple[int, ...]) -> tuple[Tensor, ...]:
    edges, turned = _typed_edges(graph), (None, None, None)
    if differentiates(*parts, *along):
        turned = _typed_edges(graph.transpose)  # type: ignore[assignment]
    shape = (*parts[0].shape, parts[2].shape[0])
    return _products.ops[1](*parts, *along, None, *edges, *turned, *shape, activation, wanted)


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
        0,
        _native.ACTIVATIONS[activation],
        _native.DTYPES[target.dtype],
        index,
    )
    return out


def _addresses(edges: tuple[Tensor, Tensor, Tensor | None]) -> tuple[list[int], int]:
    return [*(_native.address(edge) for edge in edges), 0, 0, 0], _native.INDICES[edges[0].dtype]


def _typed_edges(graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """(rowptr, col, type or None), all of one dtype."""
    kind = graph.edge_attr
    if kind is None:
        return graph.rowptr, graph.col, None
    if kind.dim() != 1 or kind.dtype.is_floating_point:
        raise ValueError("message_sum: graph.edge_attr must be 1-D integers, the type of each edge")
    return graph.rowptr, graph.col, graph.shared("edge_types", lambda: kind.to(graph.col.dtype))
