"""A whole message layer after its projections, and its derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, differentiates, fold_batch, unfold_batch
from graphgen.ops.message_passing._edges import EDGES, check_nodes, plain_graph, turn

# A term z of a message sum has three parts, each of which may be absent: one per target node, one per source node and
# one per edge type. An op of order k has the terms z_0 .. z_k and sums act^(k)(z_0) z_1 ... z_k over edges; by_type,
# it sums over the edges of a type instead. All derivatives of such a sum are such sums, see csrc/graphgen.h.
MAX_ORDER = 3
Term = tuple[Tensor | None, ...]


def _message_kernel(order: int):
    def kernel(*args) -> Tensor:
        terms, edges, (rows, features, types, activation, by_type) = _message_arguments(order, args)
        like = next(part for term in terms for part in term if part is not None)
        rowptr, neighbor, kind = edges[:3]
        if not _native.runs(like):
            return _message_reference(order, terms, edges, rows, types, activation, by_type)
        terms = [tuple(None if part is None else part.contiguous() for part in term) for term in terms]
        partial = None
        if by_type:
            chunks = -(-rows // 256)
            wide = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
            partial = like.new_empty((chunks, types, features), dtype=wide)
        out = like.new_empty((types if by_type else rows, features))
        parts = [_native.address(part) for term in terms for part in term]
        _native.call(
            _C.message_sum,
            like,
            *parts,
            *(0,) * (12 - len(parts)),
            rowptr.data_ptr(),
            neighbor.data_ptr(),
            _native.address(kind),
            out.data_ptr(),
            _native.address(partial),
            rows,
            features,
            types,
            order,
            _native.ACTIVATIONS[activation],
            int(by_type),
            _native.DTYPES[like.dtype],
            _native.INDICES[rowptr.dtype],
        )
        return out

    return kernel


def _message_arguments(order: int, args: tuple) -> tuple[list[Term], tuple, tuple]:
    count = 3 * (order + 1)
    terms = [tuple(args[at : at + 3]) for at in range(0, count, 3)]
    return terms, args[count : count + 6], args[count + 6 :]


def _message_reference(order, terms, edges, rows, types, activation, by_type) -> Tensor:
    from graphgen.ops.dense import _reference_derivative

    graph, _ = plain_graph(edges, rows)
    kind = edges[2] if edges[2] is not None else torch.zeros_like(graph.col)
    at = [
        sum(part[index] for part, index in zip(term, (graph.target, graph.col, kind), strict=True) if part is not None)
        for term in terms
    ]
    product = _reference_derivative(order)(at[0], activation)
    for factor in at[1:]:
        product = product * factor
    return product.new_zeros((types if by_type else rows, product.shape[1])).index_add(
        0, kind if by_type else graph.target, product
    )


def _message(terms: Sequence[Term], edges: tuple, rest: tuple) -> Tensor:
    order = len(terms) - 1
    if order > MAX_ORDER:
        raise RuntimeError(
            "message_sum: this asks for a fourth derivative of the activation, which no kernel provides; "
            "use ops.reference.message_sum"
        )
    return _messages[order](*(part for term in terms for part in term), *edges, *rest)


def _message_vjp(order: int):
    def vjp(args, grad, needs):
        terms, edges, (*shape, by_type) = _message_arguments(order, args)
        factor: Term = (None, None, grad) if by_type else (grad, None, None)
        grads: list[Tensor | None] = []
        for m in range(order + 1):
            others = [*terms, factor] if m == 0 else [*terms[:m], *terms[m + 1 :], factor]
            swapped = [(source, target, bias) for target, source, bias in others]
            wants = needs[3 * m : 3 * m + 3]
            grads += [
                _message(others, edges, (*shape, False)) if wants[0] else None,
                _message(swapped, turn(edges), (*shape, False)) if wants[1] else None,
                _message(others, edges, (*shape, True)) if wants[2] else None,
            ]
        return (*grads, *(None,) * 11)

    return vjp


def _message_jvp(order: int):
    def jvp(args, tangents):
        terms, edges, rest = _message_arguments(order, args)
        moved, _, _ = _message_arguments(order, tangents)
        total = None
        for m in range(order + 1):
            if all(part is None for part in moved[m]):
                continue
            along = [*terms, moved[0]] if m == 0 else [*terms[:m], moved[m], *terms[m + 1 :]]
            piece = _message(along, edges, rest)
            total = piece if total is None else total + piece
        return total

    return jvp


def _message_vmap(order: int):
    def vmap(args, in_dims, size):
        terms, edges, (rows, features, *rest) = _message_arguments(order, args)
        parts = [part for term in terms for part in term]
        folded = [fold_batch(part, dim, size) for part, dim in zip(parts, in_dims, strict=False)]
        out = _messages[order](*folded, *edges, rows, size * features, *rest)
        return unfold_batch(out, size)

    return vmap


def _message_fake(order: int):
    def fake(*args) -> Tensor:
        terms, _, (rows, features, types, _activation, by_type) = _message_arguments(order, args)
        like = next(part for term in terms for part in term if part is not None)
        return like.new_empty((types if by_type else rows, features))

    return fake


def _message_schema(order: int) -> str:
    parts = ", ".join(f"Tensor? target{m}, Tensor? source{m}, Tensor? bias{m}" for m in range(order + 1))
    edges = EDGES.replace("edge", "type")
    return f"({parts}, {edges}, SymInt rows, SymInt features, SymInt types, str activation, bool by_type) -> Tensor"


_messages = [
    Op(
        f"message_sum_{order}",
        _message_schema(order),
        _message_kernel(order),
        _message_fake(order),
        _message_vjp(order),
        _message_jvp(order),
        _message_vmap(order),
    )
    for order in range(MAX_ORDER + 1)
]


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
    kind, turned_kind = None, None
    if graph.edge_attr is not None:
        if graph.edge_attr.dim() != 1 or graph.edge_attr.dtype.is_floating_point:
            raise ValueError("message_sum: graph.edge_attr must be 1-D integers, the type of each edge")
        kind = graph.edge_attr.to(graph.col.dtype)
    if edge_bias.shape[0] < max(graph.num_edge_types, 1):
        raise IndexError(
            f"message_sum: edge_bias has {edge_bias.shape[0]} rows for {max(graph.num_edge_types, 1)} edge types"
        )
    rowptr_t = neighbor_t = None
    if differentiates(target, source, edge_bias):
        turned = graph.transpose
        rowptr_t, neighbor_t = turned.rowptr, turned.col
        turned_kind = None if turned.edge_attr is None else turned.edge_attr.to(graph.col.dtype)
    return _message(
        [(target, source, edge_bias)],
        (graph.rowptr, graph.col, kind, rowptr_t, neighbor_t, turned_kind),
        (*target.shape, edge_bias.shape[0], activation, False),
    )
