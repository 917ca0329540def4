"""Reduce over neighbours, and the derivatives by features and by weights, each again one of these kernels.

Two of them are closed under differentiation: the gather, ``out[i, f] = sum over e: j -> i of w[e, head(f)] x[j, f]``,
and the dot, ``out[e, h] = sum over f of head h of target[i, f] source[j, f]``. Both are linear in each argument, and
the derivative of either by any argument is one of the two, of these edges or of the edges turned round. A maximum
differentiates like a gather of which only the terms that won count: ``arg`` says which they are.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, fold_batch, loop_batch, unfold_batch
from graphgen.ops.message_passing._edges import EDGES, bilinear_jvp, edges_of, turn, vmap_as_heads

_EXTREMES = ("max", "min")
_REDUCES = {"sum": 0, "mean": 1, "max": 2, "min": 3}


# ---- the gather -----------------------------------------------------------------------------------------------------


def _terms(x: Tensor, weight: Tensor | None, edges: tuple) -> tuple[Tensor, Tensor, Tensor]:
    """In plain torch, for what the engine does not run: the row and the edge of each slot, and its term."""
    rowptr, neighbor, edge = edges[:3]
    row = torch.arange(rowptr.shape[0] - 1, device=x.device).repeat_interleave(rowptr.diff())
    edge = torch.arange(neighbor.shape[0], device=x.device) if edge is None else edge.long()
    terms = x[neighbor]
    if weight is not None:
        heads = weight.shape[1]
        terms = (weight[edge].unsqueeze(2) * terms.unflatten(1, (heads, x.shape[1] // max(heads, 1)))).flatten(1)
    return row, edge, terms


def _sweep(x, weight, arg, edges, out, out_arg, features, heads, reduce, arg_of_neighbor) -> None:
    """On the engine, whether a head is a dimension or not."""
    rowptr, neighbor, edge = edges[:3]
    x, weight, arg = x.contiguous(), _contiguous(weight), _contiguous(arg)
    _native.call(
        _C.neighbor_reduce,
        x,
        x.data_ptr(),
        _native.address(weight),
        _native.address(arg),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        _native.address(edge),
        out.data_ptr(),
        _native.address(out_arg),
        rowptr.shape[0] - 1,
        features,
        heads,
        neighbor.shape[0],
        _native.DTYPES[x.dtype],
        _native.INDICES[rowptr.dtype],
        _REDUCES[reduce],
        arg_of_neighbor,
    )


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _heads(weight: Tensor | None) -> int:
    return 1 if weight is None else weight.shape[1]


def _gather_kernel(x: Tensor, weight: Tensor | None, arg: Tensor | None, *rest) -> Tensor:
    *edges, arg_of_neighbor, reduce = rest
    rowptr, neighbor = edges[:2]
    out = x.new_empty((rowptr.shape[0] - 1, x.shape[1]))
    if _native.runs(x):
        _sweep(x, weight, arg, edges, out, None, x.shape[1], _heads(weight), reduce, arg_of_neighbor)
        return out
    row, edge, terms = _terms(x, weight, tuple(edges))
    if arg is not None:
        terms = torch.where(arg[neighbor if arg_of_neighbor else row] == edge.unsqueeze(1), terms, 0)
    return _over_degree(out.zero_().index_add(0, row, terms), rowptr, reduce)


def _over_degree(total: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    return total / rowptr.diff().clamp(min=1).unsqueeze(-1).to(total.dtype) if reduce == "mean" else total


def _gather_vjp(args, grad, needs):
    x, weight, arg, *edges, arg_of_neighbor, reduce = args
    grad = _over_degree(grad, edges[0], reduce)
    return (
        _gather(grad, weight, arg, *turn(edges), not arg_of_neighbor, "sum") if needs[0] else None,
        _edge_dot(grad, x, arg, *edges, weight.shape[1], arg_of_neighbor) if needs[1] else None,
        *(None,) * 9,
    )


def _is_batched(in_dims: tuple) -> bool:
    return any(dim is not None for dim in in_dims)


def _fold_weight(weight: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """The weights of a batch as so many more heads; one head, the same for all of the batch, stays one."""
    if weight is None or (dim is None and weight.shape[1] == 1):
        return weight
    return fold_batch(weight, dim, size)


def _gather_vmap(args, in_dims, size):
    if _is_batched(in_dims[3:]):
        return loop_batch(_gather, args, in_dims, size)
    x, weight, arg = args[:3]
    folded = fold_batch(x, in_dims[0], size), _fold_weight(weight, in_dims[1], size), fold_batch(arg, in_dims[2], size)
    return unfold_batch(_gather(*folded, *args[3:]), size)


_gather: Op = Op(
    "neighbor_reduce",
    f"(Tensor x, Tensor? weight, Tensor? arg, {EDGES}, bool arg_of_neighbor, str reduce) -> Tensor",
    _gather_kernel,
    lambda x, weight, arg, rowptr, *rest: x.new_empty((rowptr.shape[0] - 1, x.shape[1])),
    _gather_vjp,
    lambda args, tangents: bilinear_jvp(_gather, args, tangents),
    _gather_vmap,
)


# ---- its derivative by the weights ----------------------------------------------------------------------------------


def _edge_dot_kernel(target: Tensor, source: Tensor, arg: Tensor | None, *rest) -> Tensor:
    *edges, heads, arg_of_neighbor = rest
    rowptr, neighbor, edge = edges[:3]
    out = target.new_empty((neighbor.shape[0], heads))
    if _native.runs(target):
        _dot(target, source, arg, rowptr, neighbor, edge, out, target.shape[1], heads, arg_of_neighbor)
    else:
        row, edge, products = _terms(source, None, tuple(edges))
        products = target[row] * products
        if arg is not None:
            products = torch.where(arg[neighbor if arg_of_neighbor else row] == edge.unsqueeze(1), products, 0)
        out = out.index_copy(0, edge, products.unflatten(1, (heads, target.shape[1] // max(heads, 1))).sum(2))
    return out


def _dot(target, source, arg, rowptr, neighbor, edge, out, features, heads, arg_of_neighbor) -> None:
    """On the engine, whether a head is a dimension or not."""
    target, source, arg = target.contiguous(), source.contiguous(), _contiguous(arg)
    _native.call(
        _C.edge_dot,
        target,
        target.data_ptr(),
        source.data_ptr(),
        _native.address(arg),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        _native.address(edge),
        out.data_ptr(),
        target.shape[0],
        features,
        heads,
        _native.DTYPES[target.dtype],
        _native.INDICES[rowptr.dtype],
        arg_of_neighbor,
    )


def _edge_dot_vjp(args, grad, needs):
    target, source, arg, *edges, _, arg_of_neighbor = args
    return (
        _gather(source, grad, arg, *edges, arg_of_neighbor, "sum") if needs[0] else None,
        _gather(target, grad, arg, *turn(edges), not arg_of_neighbor, "sum") if needs[1] else None,
        *(None,) * 9,
    )


_edge_dot: Op = Op(
    "edge_dot",
    f"(Tensor target, Tensor source, Tensor? arg, {EDGES}, SymInt heads, bool arg_of_neighbor) -> Tensor",
    _edge_dot_kernel,
    lambda target, source, arg, *rest: target.new_empty((rest[1].shape[0], rest[6])),
    _edge_dot_vjp,
    lambda args, tangents: bilinear_jvp(_edge_dot, args, tangents),
    vmap_as_heads(lambda: _edge_dot, 3),
)


# ---- the extremes ---------------------------------------------------------------------------------------------------


def _extreme_kernel(x: Tensor, weight: Tensor | None, *rest) -> tuple[Tensor, Tensor]:
    *edges, reduce = rest
    rowptr, neighbor = edges[:2]
    out = x.new_empty((rowptr.shape[0] - 1, x.shape[1]))
    arg = torch.empty(out.shape, dtype=torch.int64, device=x.device)
    if _native.runs(x):
        _sweep(x, weight, None, edges, out, arg, x.shape[1], _heads(weight), reduce, False)
        return out, arg
    row, edge, terms = _terms(x, weight, tuple(edges))
    return extreme_of(terms, row, edge, neighbor.shape[0], out.shape[0], reduce)


def extreme_of(terms: Tensor, row: Tensor, edge: Tensor, none: int, rows: int, reduce: str) -> tuple[Tensor, Tensor]:
    """The extreme term of each row and the first edge that has it, in plain torch; 0 and `none` for a row of none."""
    index = row.unsqueeze(1).expand_as(terms)
    values = terms.new_zeros((rows, terms.shape[1]))
    values = values.scatter_reduce(0, index, terms, "amax" if reduce == "max" else "amin", include_self=False)
    wins = (terms == values[row]) | terms.isnan()
    candidates = torch.where(wins, edge.unsqueeze(1), none)
    first = torch.full_like(values, none, dtype=torch.int64)
    return values, first.scatter_reduce(0, index, candidates, "amin")


def _extreme_vjp(args, grads, needs):
    x, weight, *edges, _reduce, _values, arg = args
    if grads[0] is None:
        return (None,) * 9
    return (*_gather_vjp((x, weight, arg, *edges, False, "sum"), grads[0], needs)[:2], *(None,) * 7)


def _extreme_jvp(args, tangents):
    x, weight, *edges, _reduce, _values, arg = args
    return bilinear_jvp(_gather, (x, weight, arg, *edges, False, "sum"), tangents), None


def _extreme_vmap(args, in_dims, size):
    if _is_batched(in_dims[2:]):
        return loop_batch(_extreme, args, in_dims, size)
    x, weight = fold_batch(args[0], in_dims[0], size), _fold_weight(args[1], in_dims[1], size)
    values, arg = _extreme(x, weight, *args[2:])
    return (unfold_batch(values, size)[0], unfold_batch(arg, size)[0]), (1, 1)


_extreme: Op = Op(
    "neighbor_extreme",
    f"(Tensor x, Tensor? weight, {EDGES}, str reduce) -> (Tensor, Tensor)",
    _extreme_kernel,
    lambda x, weight, rowptr, *rest: (
        x.new_empty((rowptr.shape[0] - 1, x.shape[1])),
        x.new_empty((rowptr.shape[0] - 1, x.shape[1]), dtype=torch.int64),
    ),
    _extreme_vjp,
    _extreme_jvp,
    _extreme_vmap,
    keeps_result=True,
)


# ---- the public functions -------------------------------------------------------------------------------------------


def _check(name: str, argument: str, x: Tensor, graph: GraphBatch) -> torch.Size:
    shape = x.shape
    if len(shape) not in (2, 3) or shape[0] != graph.rowptr.shape[0] - 1:
        raise ValueError(
            f"{name}: {argument} must be [{graph.num_nodes}, F] or [{graph.num_nodes}, H, D], got {list(shape)}"
        )
    if x.device != graph.col.device:
        raise ValueError(f"{name}: {argument} is on {x.device}, the graph on {graph.device}; move one of them")
    return shape


def _check_weight(name: str, shape: torch.Size, dtype: torch.dtype, weight: Tensor, graph: GraphBatch) -> int:
    """The number of heads the weights stand for."""
    given, edges = weight.shape, graph.col.shape[0]
    if weight.dtype == dtype and len(given) > 0 and given[0] == edges:
        if len(given) == 1:
            return 1
        if len(given) == 2 and given[1] == shape[1]:
            return given[1]
    raise ValueError(
        f"{name}: weight must be [{edges}] or [{edges}, {shape[1]}] {dtype} (per "
        f"{'head' if len(shape) == 3 else 'feature'}), got {list(given)} {weight.dtype}"
    )


def _rows(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.flatten(1)


def _columns(weight: Tensor | None) -> Tensor | None:
    return weight if weight is None or weight.dim() == 2 else weight.unsqueeze(1)


def neighbor_reduce(x: Tensor, graph: GraphBatch, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """``out[i] = reduce over edges e: j -> i of weight[e] * x[j]``, without anything of size [E, F].

    Args:
        x: [N, F], or [N, H, D] of H heads, float32, float64 or bfloat16 (accumulated in float32).
        weight: [E], in the order of ``graph.col``; or [E, H] with x [N, H, D], one a head; or [E, F] with x [N, F],
            one a feature. Same dtype as x; None for 1.
        reduce: "sum", "mean" (the sum over the number of edges that enter), "max" or "min" (see
            :func:`neighbor_max`); 0 for an isolated node.

    Returns:
        The shape of x. Differentiable any number of times by x and weight.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    shape = _check("neighbor_reduce", "x", x, graph)
    heads = 1 if weight is None else _check_weight("neighbor_reduce", shape, x.dtype, weight, graph)
    code = _REDUCES.get(reduce)
    if code is None:
        raise ValueError(f"neighbor_reduce: reduce must be one of {sorted(_REDUCES)}, got {reduce!r}")
    if eager(x, weight) and x.dtype in _native.DTYPES and x.is_cpu:
        # On one molecule every further call would show: this is _sweep, written out.
        x = x.contiguous()
        if weight is not None:
            weight = weight.contiguous()
        out = torch.empty_like(x)
        rowptr, col = graph.rowptr, graph.col
        _native.check(
            _C.neighbor_reduce(
                x.data_ptr(),
                0 if weight is None else weight.data_ptr(),
                0,
                rowptr.data_ptr(),
                col.data_ptr(),
                0,
                out.data_ptr(),
                0,
                shape[0],
                shape[1] if len(shape) == 2 else shape[1] * shape[2],
                heads,
                0,
                _native.DTYPES[x.dtype],
                _native.INDICES[rowptr.dtype],
                code,
                0,
                0,
                torch.get_num_threads(),
                0,
            )
        )
        return out
    edges = edges_of(graph, x, weight)
    if reduce in _EXTREMES:
        return _extreme(_rows(x), _columns(weight), *edges, reduce)[0].reshape(shape)
    return _gather(_rows(x), _columns(weight), None, *edges, False, reduce).reshape(shape)


def _public_extreme(name: str, x: Tensor, graph: GraphBatch, weight: Tensor | None, reduce: str):
    shape = _check(name, "x", x, graph)
    heads = 1 if weight is None else _check_weight(name, shape, x.dtype, weight, graph)
    if eager(x, weight) and _native.runs(x):
        values = torch.empty_like(x, memory_format=torch.contiguous_format)
        arg = torch.empty_like(values, dtype=torch.int64)
        _sweep(x, weight, None, (graph.rowptr, graph.col, None), values, arg, prod(shape[1:]), heads, reduce, False)
        return values, arg
    values, arg = _extreme(_rows(x), _columns(weight), *edges_of(graph, x, weight), reduce)
    return values.reshape(shape), arg.reshape(shape)


def neighbor_max(x: Tensor, graph: GraphBatch, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest ``weight[e] * x[j]`` over the edges e: j -> i, and the edge that has it.

    Args:
        x, weight: as :func:`neighbor_reduce`.

    Returns:
        Values and arg, both of the shape of x. arg is int64, the place of the edge in ``graph.col``; of equal terms
        the lowest edge. A NaN is larger than anything, the first one wins. At an isolated node the value is 0 and
        arg is E. The derivative goes to the terms that won.

    Raises:
        ValueError: as neighbor_reduce.
    """
    return _public_extreme("neighbor_max", x, graph, weight, "max")


def neighbor_min(x: Tensor, graph: GraphBatch, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The smallest ``weight[e] * x[j]`` over the edges e: j -> i, and the edge that has it; see :func:`neighbor_max`.

    A NaN is smaller than anything here.
    """
    return _public_extreme("neighbor_min", x, graph, weight, "min")


def edge_dot(target: Tensor, source: Tensor, graph: GraphBatch) -> Tensor:
    """``out[e] = <target[i], source[j]>`` for every edge e: j -> i; the derivative of neighbor_reduce by its weights.

    Args:
        target, source: [N, F], or [N, H, D] of H heads, same shape and dtype.

    Returns:
        [E], or [E, H], in the order of ``graph.col``.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    shape = _check("edge_dot", "target", target, graph)
    if shape != _check("edge_dot", "source", source, graph) or target.dtype != source.dtype:
        raise ValueError("edge_dot: target and source must have the same shape and dtype")
    heads = 1 if len(shape) == 2 else shape[1]
    if eager(target, source) and _native.runs(target):
        rowptr, col = graph.rowptr, graph.col
        out = target.new_empty(col.shape[0] if len(shape) == 2 else (col.shape[0], heads))
        _dot(target, source, None, rowptr, col, None, out, prod(shape[1:]), heads, False)
        return out
    edges = edges_of(graph, target, source)
    out = _edge_dot(_rows(target), _rows(source), None, *edges, heads, False)
    return out.squeeze(1) if len(shape) == 2 else out
