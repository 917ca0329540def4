"""Message passing: reduce over ragged rows, over neighbours, over messages.

Sums run in the order of the rows and edges, never by atomics: the same input gives the same bits, whatever the
number of threads and whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, differentiates, fold_batch, loop_batch, unfold_batch
from graphgen.ops.reference import message_passing as reference

# ---- segments -------------------------------------------------------------------------------------------------------


def _segment_kernel(function, src: Tensor, ptr: Tensor, out: Tensor, rows: int, reduce: str) -> Tensor:
    src, ptr = src.contiguous(), ptr.contiguous()
    _native.call(
        function,
        src,
        src.data_ptr(),
        ptr.data_ptr(),
        out.data_ptr(),
        ptr.numel() - 1,
        src.shape[1],
        _native.DTYPES[src.dtype],
        _native.INDICES[ptr.dtype],
        _native.REDUCES[reduce],
        rows,
    )
    return out


def _segment_reduce_kernel(src: Tensor, ptr: Tensor, reduce: str) -> Tensor:
    if not _native.runs(src):
        return reference.segment_reduce(src, ptr, reduce)
    out = src.new_empty((ptr.numel() - 1, src.shape[1]))
    return _segment_kernel(_C.segment_reduce, src, ptr, out, src.shape[0], reduce)


def _segment_broadcast_kernel(src: Tensor, ptr: Tensor, rows: int, reduce: str) -> Tensor:
    if not _native.runs(src):
        return reference.segment_broadcast(src, ptr, rows, reduce)
    shape = (rows, src.shape[1])
    out = src.new_zeros(shape) if src.is_cuda else src.new_empty(shape)
    return _segment_kernel(_C.segment_broadcast, src, ptr, out, rows, reduce)


def _segment_reduce_vmap(args, in_dims, size):
    src, ptr, reduce = args
    if in_dims[1] is not None:
        return loop_batch(_segment_reduce, args, in_dims, size)
    return unfold_batch(_segment_reduce(fold_batch(src, in_dims[0], size), ptr, reduce), size)


def _segment_broadcast_vmap(args, in_dims, size):
    src, ptr, rows, reduce = args
    if in_dims[1] is not None:
        return loop_batch(_segment_broadcast, args, in_dims, size)
    return unfold_batch(_segment_broadcast(fold_batch(src, in_dims[0], size), ptr, rows, reduce), size)


_segment_reduce: Op = Op(
    "segment_reduce",
    "(Tensor src, Tensor ptr, str reduce) -> Tensor",
    _segment_reduce_kernel,
    lambda src, ptr, reduce: src.new_empty((ptr.shape[0] - 1, src.shape[1])),
    lambda args, grad, needs: (_segment_broadcast(grad, args[1], args[0].shape[0], args[2]), None, None),
    lambda args, tangents: _segment_reduce(tangents[0], *args[1:]),
    _segment_reduce_vmap,
)
_segment_broadcast: Op = Op(
    "segment_broadcast",
    "(Tensor src, Tensor ptr, SymInt rows, str reduce) -> Tensor",
    _segment_broadcast_kernel,
    lambda src, ptr, rows, reduce: src.new_empty((rows, src.shape[1])),
    lambda args, grad, needs: (_segment_reduce(grad, args[1], args[3]), None, None, None),
    lambda args, tangents: _segment_broadcast(tangents[0], *args[1:]),
    _segment_broadcast_vmap,
)


def _check_segments(name: str, ptr: Tensor, reduce: str) -> None:
    if reduce not in _native.REDUCES:
        raise ValueError(f"{name}: reduce must be one of {sorted(_native.REDUCES)}, got {reduce!r}")
    if ptr.dim() != 1 or ptr.shape[0] == 0 or ptr.dtype not in _native.INDICES:
        raise ValueError(f"{name}: ptr must be [S + 1] int32 or int64, got {list(ptr.shape)} {ptr.dtype}")


def segment_reduce(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce ragged rows: ``out[s] = reduce of src[ptr[s]:ptr[s + 1]]``.

    Args:
        src: [R, ...] float32, float64 or bfloat16 (accumulated in float32).
        ptr: [S + 1] int32 or int64, never falling, within [0, R].
        reduce: "sum" or "mean"; an empty segment gives 0.

    Returns:
        [S, ...].

    Raises:
        IndexError: a segment that leaves the rows (CPU; a CUDA call clamps, since it does not wait to look).
        ValueError: shapes or dtypes that do not fit.
    """
    _check_segments("segment_reduce", ptr, reduce)
    if src.dim() == 2:
        return _segment_reduce(src, ptr, reduce)
    if src.dim() == 0:
        raise ValueError("segment_reduce: src needs at least one dimension")
    flat = src.reshape(src.shape[0], prod(src.shape[1:]))
    return _segment_reduce(flat, ptr, reduce).reshape(ptr.shape[0] - 1, *src.shape[1:])


def segment_broadcast(src: Tensor, ptr: Tensor, rows: int, reduce: str = "sum") -> Tensor:
    """The transpose of :func:`segment_reduce`: row r of segment s gets ``src[s]`` ("mean": over its length).

    Args:
        src: [S, ...]; ptr: [S + 1]; rows: R, the length of the result. Rows in no segment are 0.

    Returns:
        [R, ...].

    Raises:
        IndexError, ValueError: as segment_reduce.
    """
    _check_segments("segment_broadcast", ptr, reduce)
    if src.dim() == 0 or src.shape[0] != ptr.shape[0] - 1:
        raise ValueError(f"segment_broadcast: src {list(src.shape)} needs {ptr.shape[0] - 1} rows")
    if src.dim() == 2:
        return _segment_broadcast(src, ptr, rows, reduce)
    flat = src.reshape(src.shape[0], prod(src.shape[1:]))
    return _segment_broadcast(flat, ptr, rows, reduce).reshape(rows, *src.shape[1:])


# ---- neighbours -----------------------------------------------------------------------------------------------------

# Every neighbour op takes its edges twice: by the row that sums (rowptr, neighbor, edge) and, for derivatives, turned
# round (the same three). Turning an op's edges round is swapping the triples.
_EDGES = "Tensor rowptr, Tensor neighbor, Tensor? edge, Tensor? rowptr_t, Tensor? neighbor_t, Tensor? edge_t"


def _edges(graph: GraphBatch, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    turned = graph.outgoing if differentiates(*tensors) else (None, None, None)
    return (*graph.incoming, *turned)


def _turn(edges: tuple) -> tuple:
    return (*edges[3:], *edges[:3])


def _plain_graph(edges: Sequence, rows: int) -> tuple[GraphBatch, Tensor | None]:
    """For the reference implementations: the edges as a graph, and where its per-edge tensors come from."""
    rowptr, neighbor, edge = edges[:3]
    ptr = rowptr.new_tensor([0, rows])
    return GraphBatch(ptr=ptr, rowptr=rowptr, col=neighbor, perm=torch.empty(0)), edge


def _neighbor_reduce_kernel(x: Tensor, weight: Tensor | None, *rest) -> Tensor:
    *edges, reduce = rest
    rowptr, neighbor, edge = edges[:3]
    if not _native.runs(x):
        graph, edge = _plain_graph(edges, x.shape[0])
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
        _neighbor_reduce(grad, weight, *_turn(edges), "sum") if needs[0] else None,
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
        graph, edge = _plain_graph(edges, target.shape[0])
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
        _neighbor_reduce(target, grad, *_turn(edges), "sum") if needs[1] else None,
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
    f"(Tensor x, Tensor? weight, {_EDGES}, str reduce) -> Tensor",
    _neighbor_reduce_kernel,
    lambda x, weight, rowptr, *rest: x.new_empty((rowptr.shape[0] - 1, x.shape[1])),
    _neighbor_reduce_vjp,
    _neighbor_reduce_jvp,
    _neighbor_reduce_vmap,
)
_edge_dot: Op = Op(
    "edge_dot",
    f"(Tensor target, Tensor source, {_EDGES}) -> Tensor",
    _edge_dot_kernel,
    lambda target, source, rowptr, neighbor, *rest: target.new_empty(neighbor.shape[0]),
    _edge_dot_vjp,
    _edge_dot_jvp,
    lambda args, in_dims, size: loop_batch(_edge_dot, args, in_dims, size),
)


def _check_nodes(name: str, argument: str, x: Tensor, graph: GraphBatch) -> None:
    if x.dim() != 2 or x.shape[0] != graph.num_nodes:
        raise ValueError(f"{name}: {argument} must be [{graph.num_nodes}, F], got {list(x.shape)}")
    if x.device != graph.device:
        raise ValueError(f"{name}: {argument} is on {x.device}, the graph on {graph.device}")


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
    _check_nodes("neighbor_reduce", "x", x, graph)
    if weight is not None and (weight.shape != (graph.num_edges,) or weight.dtype != x.dtype):
        raise ValueError(
            f"neighbor_reduce: weight must be [{graph.num_edges}] {x.dtype}, got {list(weight.shape)} {weight.dtype}"
        )
    if reduce not in _native.REDUCES:
        raise ValueError(f"neighbor_reduce: reduce must be one of {sorted(_native.REDUCES)}, got {reduce!r}")
    return _neighbor_reduce(x, weight, *_edges(graph, x, weight), reduce)


def edge_dot(target: Tensor, source: Tensor, graph: GraphBatch) -> Tensor:
    """``out[e] = <target[i], source[j]>`` for every edge e: j -> i; the derivative of neighbor_reduce by its weights.

    Args:
        target, source: [N, F], same dtype.

    Returns:
        [E] in the order of ``graph.col``.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    _check_nodes("edge_dot", "target", target, graph)
    _check_nodes("edge_dot", "source", source, graph)
    if target.shape != source.shape or target.dtype != source.dtype:
        raise ValueError("edge_dot: target and source must have the same shape and dtype")
    return _edge_dot(target, source, *_edges(graph, target, source))


# ---- messages -------------------------------------------------------------------------------------------------------

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

    graph, _ = _plain_graph(edges, rows)
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
                _message(swapped, _turn(edges), (*shape, False)) if wants[1] else None,
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
    edges = _EDGES.replace("edge", "type")
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
    _check_nodes("message_sum", "target", target, graph)
    _check_nodes("message_sum", "source", source, graph)
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
