"""A whole message layer after its projections, and its derivatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, differentiates, eager, fold_batch, unfold_batch
from graphgen.ops.message_passing._edges import EDGES, check_nodes
from graphgen.ops.reference import message_passing as reference

_CHUNK = 256  # GG_MESSAGE_CHUNK of csrc/graphgen.h

# A term z of a message sum has three parts, each of which may be absent: one per target node, one per source node and
# one per edge type. The op of order k has the terms z_0 .. z_k and gives the derivatives of
#     A_k = sum over edges and features of act^(k - 1)(z_0) z_1 ... z_k
# by those parts of them that are wanted, all in one sweep over the edges by target and one by source. message_sum is
# the derivative of A_0 by the target's part of z_0. As A_k is linear in z_1 .. z_k, and act^(k - 1) has the derivative
# act^(k), every derivative of such an op is a sum of such ops.
MAX_ORDER = 3
TARGET, SOURCE, BIAS = range(3)
Term = tuple[Tensor | None, ...]
ABSENT: Term = (None, None, None)
_NONE = (0,) * 9


def _arguments(order: int, args: tuple) -> tuple[list[Term], tuple, tuple]:
    count = 3 * (order + 1)
    terms = [tuple(args[at : at + 3]) for at in range(0, count, 3)]
    return terms, args[count : count + 6], args[count + 6 :]


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
            terms, edges, _ = _arguments(order, args)
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


def _gradients(terms: Sequence[Term], edges: tuple, rest: tuple, wanted: Sequence[int]) -> list[Tensor]:
    """The derivatives of A_k, k = len(terms) - 1, by the parts whose codes, 3 * term + part, are wanted."""
    if not wanted:
        return []
    order = len(terms) - 1
    of = {code // 3 for code in wanted}
    if order > MAX_ORDER and 0 in of:
        raise RuntimeError(
            "message_sum: this asks for a fourth derivative of the activation, which no kernel provides; "
            "use ops.reference.message_sum"
        )
    if of == {0} or (len(of) > 1 and order <= MAX_ORDER):
        parts = (part for term in terms for part in term)
        return list(_messages[order](*parts, *edges, *rest, list(wanted)))
    # By z_m alone, m > 0: what is left when z_m is taken away is a derivative by z_0 of the next lower order.
    results: dict[int, Tensor] = {}
    for m in of:
        codes = [code for code in wanted if code // 3 == m]
        lower = _gradients([*terms[:m], *terms[m + 1 :]], edges, rest, [code % 3 for code in codes])
        results |= zip(codes, lower, strict=True)
    return [results[code] for code in wanted]


def _absent(term: Term) -> bool:
    return all(part is None for part in term)


def _vjp(order: int):
    def vjp(args, grads, needs):
        terms, edges, (*rest, wanted) = _arguments(order, args)
        along = [list(ABSENT) for _ in terms]
        for code, grad in zip(wanted, grads, strict=True):
            along[code // 3][code % 3] = grad
        needed = [code for code in range(3 * len(terms)) if needs[code]]
        total: list[Tensor | None] = [None] * len(args)
        # <grads, derivatives of A_k by z_m> is A_k with z_m replaced, and for z_0 it is A_{k + 1}.
        for m, term in enumerate(map(tuple, along)):
            if _absent(term):
                continue
            inner = [*terms, term] if m == 0 else [*terms[:m], term, *terms[m + 1 :]]
            codes = [code for code in needed if m == 0 or code // 3 != m]
            for code, piece in zip(codes, _gradients(inner, edges, tuple(rest), codes), strict=True):
                known = total[code]
                total[code] = piece if known is None else known + piece
        return tuple(total)

    return vjp


def _jvp(order: int):
    def jvp(args, tangents):
        terms, edges, (*rest, wanted) = _arguments(order, args)
        moved, _, _ = _arguments(order, tangents[: len(args)])
        total: dict[int, Tensor] = {}
        for n, term in enumerate(moved):
            if _absent(term):
                continue
            inner = [*terms, term] if n == 0 else [*terms[:n], term, *terms[n + 1 :]]
            codes = [code for code in wanted if n == 0 or code // 3 != n]
            for code, piece in zip(codes, _gradients(inner, edges, tuple(rest), codes), strict=True):
                total[code] = total[code] + piece if code in total else piece
        like, (rows, features, types, _) = _first(args), rest
        shapes = ((types if code % 3 == BIAS else rows, features) for code in wanted)
        return tuple(total.get(code, like.new_zeros(shape)) for code, shape in zip(wanted, shapes, strict=True))

    return jvp


def _vmap(order: int):
    def vmap(args, in_dims, size):
        terms, edges, (rows, features, *rest) = _arguments(order, args)
        parts = [part for term in terms for part in term]
        folded = [fold_batch(part, dim, size) for part, dim in zip(parts, in_dims, strict=False)]
        out = _messages[order](*folded, *edges, rows, size * features, *rest)
        return tuple(unfold_batch(part, size)[0] for part in out), (1,) * len(out)

    return vmap


def _fake(order: int):
    def fake(*args) -> tuple[Tensor, ...]:
        rows, features, types, _activation, wanted = args[-5:]
        like = _first(args)
        return tuple(like.new_empty((types if code % 3 == BIAS else rows, features)) for code in wanted)

    return fake


def _schema(order: int) -> str:
    parts = ", ".join(f"Tensor? target{m}, Tensor? source{m}, Tensor? bias{m}" for m in range(order + 1))
    edges = EDGES.replace("edge", "type")
    results = "(" + ", ".join(["Tensor"] * 3 * (order + 1)) + ")"
    return f"({parts}, {edges}, SymInt rows, SymInt features, SymInt types, str activation, int[] wanted) -> {results}"


_messages = [
    Op(
        f"message_sum_{order}",
        _schema(order),
        _kernel(order),
        _fake(order),
        _vjp(order),
        _jvp(order),
        _vmap(order),
        chooses=True,
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
    types = edge_bias.shape[0]
    if types < (graph.num_edge_types or 1):
        raise IndexError(f"message_sum: edge_bias has {types} rows for {graph.num_edge_types or 1} edge types")
    edges = _typed_edges(graph)
    if eager(target, source, edge_bias) and _native.runs(target):
        return _layer(target, source, edge_bias, graph, activation)
    arguments = (target, source, edge_bias, *edges)
    turned = _typed_edges(graph.transpose) if differentiates(target, source, edge_bias) else (None, None, None)
    return _messages[0](*arguments, *turned, *target.shape, types, activation, (TARGET,))[0]


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


def _typed_edges(graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """(rowptr, col, type or None), all of one dtype."""
    kind = graph.edge_attr
    if kind is None:
        return graph.rowptr, graph.col, None
    if kind.dim() != 1 or kind.dtype.is_floating_point:
        raise ValueError("message_sum: graph.edge_attr must be 1-D integers, the type of each edge")
    return graph.rowptr, graph.col, graph.shared("edge_types", lambda: kind.to(graph.col.dtype))
