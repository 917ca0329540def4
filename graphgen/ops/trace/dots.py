"""Dot products per graph, and the transpose that all their derivatives are made of.

Both ops take one vector [N, F] or several [K, N, F]. Of several, the dot products are those of all pairs, and the
transpose is a linear combination: with these two, orthogonalisation of vectors per graph needs no padding.
"""

from __future__ import annotations

from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, loop_batch
from graphgen.ops.reference import trace as reference


def _graph_dot_kernel(a: Tensor, b: Tensor, ptr: Tensor) -> Tensor:
    if not _native.runs(a):
        return reference.graph_dot(a, b, ptr)
    a, b, ptr = a.contiguous(), b.contiguous(), ptr.contiguous()
    graphs = ptr.shape[0] - 1
    if a.dim() == 2:
        rows, features = a.shape
        count_a = count_b = 1
        out = a.new_empty(graphs)
    else:
        count_a, rows, features = a.shape
        count_b = b.shape[0]
        out = a.new_empty((count_a, count_b, graphs))
    _native.call(
        _C.graph_dot,
        a,
        a.data_ptr(),
        b.data_ptr(),
        ptr.data_ptr(),
        out.data_ptr(),
        graphs,
        rows,
        features,
        count_a,
        count_b,
        _native.DTYPES[a.dtype],
        _native.INDICES[ptr.dtype],
    )
    return out


def _graph_scale_kernel(scale: Tensor, a: Tensor, ptr: Tensor) -> Tensor:
    if not _native.runs(a):
        return reference.graph_scale(scale, a, ptr)
    scale, a, ptr = scale.contiguous(), a.contiguous(), ptr.contiguous()
    if a.dim() == 2:
        rows, features = a.shape
        count = terms = 1
    else:
        terms, rows, features = a.shape
        count = scale.shape[0]
    shape = a.shape if a.dim() == 2 else (count, rows, features)
    out = a.new_zeros(shape) if a.is_cuda else a.new_empty(shape)
    _native.call(
        _C.graph_combine,
        a,
        scale.data_ptr(),
        a.data_ptr(),
        ptr.data_ptr(),
        out.data_ptr(),
        ptr.shape[0] - 1,
        rows,
        features,
        count,
        terms,
        _native.DTYPES[a.dtype],
        _native.INDICES[ptr.dtype],
    )
    return out


def _turned(scale: Tensor) -> Tensor:
    return scale if scale.dim() == 1 else scale.transpose(0, 1)


def _graph_dot_vjp(args, grad, needs):
    a, b, ptr = args
    return (
        _graph_scale(grad, b, ptr) if needs[0] else None,
        _graph_scale(_turned(grad), a, ptr) if needs[1] else None,
        None,
    )


def _graph_scale_vjp(args, grad, needs):
    scale, a, ptr = args
    return (
        _graph_dot(grad, a, ptr) if needs[0] else None,
        _graph_scale(_turned(scale), grad, ptr) if needs[1] else None,
        None,
    )


def _bilinear_jvp(op_of):
    def jvp(args, tangents):
        (x, y, ptr), (dx, dy, _) = args, tangents
        by_x = None if dx is None else op_of()(dx, y, ptr)
        by_y = None if dy is None else op_of()(x, dy, ptr)
        if by_x is None or by_y is None:
            return by_y if by_x is None else by_x
        return by_x + by_y

    return jvp


def _graph_dot_vmap(args, in_dims, size):
    a, b, ptr = args
    if in_dims[2] is not None or None not in in_dims[:2]:
        return loop_batch(_graph_dot, args, in_dims, size)
    # The batch of the one joins its vectors, if it has several, for the products of all pairs.
    left = in_dims[1] is None
    batched, other = (a, b) if left else (b, a)
    many = batched.movedim(in_dims[0] if left else in_dims[1], 0)
    if other.dim() == 2:
        return _graph_dot(many, other.unsqueeze(0), ptr).squeeze(1), 0
    out = _graph_dot(many.flatten(0, 1), other, ptr).unflatten(0, many.shape[:2])
    return (out if left else out.transpose(1, 2)), 0


def _graph_scale_vmap(args, in_dims, size):
    scale, a, ptr = args
    if in_dims[0] is None or in_dims[1:] != (None, None):
        return loop_batch(_graph_scale, args, in_dims, size)
    many = scale.movedim(in_dims[0], 0)
    if a.dim() == 2:
        return _graph_scale(many.unsqueeze(1), a.unsqueeze(0), ptr), 0
    return _graph_scale(many.flatten(0, 1), a, ptr).unflatten(0, many.shape[:2]), 0


def _graph_dot_fake(a: Tensor, b: Tensor, ptr: Tensor) -> Tensor:
    graphs = ptr.shape[0] - 1
    return a.new_empty((graphs,) if a.dim() == 2 else (a.shape[0], b.shape[0], graphs))


def _graph_scale_fake(scale: Tensor, a: Tensor, ptr: Tensor) -> Tensor:
    return a.new_empty(a.shape if a.dim() == 2 else (scale.shape[0], *a.shape[1:]))


_graph_dot: Op = Op(
    "graph_dot",
    "(Tensor a, Tensor b, Tensor ptr) -> Tensor",
    _graph_dot_kernel,
    _graph_dot_fake,
    _graph_dot_vjp,
    _bilinear_jvp(lambda: _graph_dot),
    _graph_dot_vmap,
)
_graph_scale: Op = Op(
    "graph_scale",
    "(Tensor scale, Tensor a, Tensor ptr) -> Tensor",
    _graph_scale_kernel,
    _graph_scale_fake,
    _graph_scale_vjp,
    _bilinear_jvp(lambda: _graph_scale),
    _graph_scale_vmap,
)


def _check_ptr(name: str, ptr: Tensor, like: Tensor) -> None:
    if ptr.dim() != 1 or ptr.shape[0] == 0 or ptr.dtype not in _native.INDICES or ptr.device != like.device:
        raise ValueError(
            f"{name}: ptr must be [B + 1] int32 or int64 on {like.device}, got {list(ptr.shape)} {ptr.dtype} on "
            f"{ptr.device}"
        )


def graph_dot(a: Tensor, b: Tensor, ptr: Tensor) -> Tensor:
    """``out[g] = <a, b>`` over the rows of graph g, in one pass; differentiable any number of times.

    The order of the sum depends on how many numbers the graph has and on nothing else.

    Args:
        a, b: [N, F] each; or [K, N, F] and [M, N, F], for the products of all pairs. float32, float64 or bfloat16
            (accumulated in float32).
        ptr: [B + 1] int32 or int64 row boundaries, never falling, within [0, N]; ``graph.ptr``.

    Returns:
        [B], or [K, M, B].

    Raises:
        IndexError: a graph that leaves the rows (CPU; a CUDA call clamps, since it does not wait to look).
        ValueError: shapes, dtypes or devices that do not fit.
    """
    if a.dim() not in (2, 3) or b.dim() != a.dim() or a.shape[-2:] != b.shape[-2:] or a.dtype != b.dtype:
        raise ValueError(
            f"graph_dot: expected a and b [N, F] or [K, N, F] and [M, N, F] of one dtype, got {list(a.shape)} "
            f"{a.dtype} and {list(b.shape)} {b.dtype}"
        )
    _check_ptr("graph_dot", ptr, a)
    if eager(a, b):
        return _graph_dot.direct(a, b, ptr)
    return _graph_dot(a, b, ptr)


def graph_scale(scale: Tensor, a: Tensor, ptr: Tensor) -> Tensor:
    """The transpose of :func:`graph_dot`: the rows of graph g are ``scale[g] * a``; or a sum of such terms.

    Args:
        scale: [B], or [K, M, B]; dtype of a.
        a: [N, F], or [M, N, F].
        ptr: [B + 1] as graph_dot's. Rows in no graph become 0.

    Returns:
        [N, F]; or [K, N, F], ``out[k] = sum over m of scale[k, m, g] * a[m]``, added in the order of m.

    Raises:
        IndexError, ValueError: as graph_dot.
    """
    fits = (a.dim() == 2 and scale.dim() == 1) or (a.dim() == 3 and scale.dim() == 3 and scale.shape[1] == a.shape[0])
    if not fits or scale.dtype != a.dtype or scale.shape[-1] != ptr.shape[0] - 1:
        raise ValueError(
            f"graph_scale: expected scale [B] and a [N, F], or [K, M, B] and [M, N, F], of one dtype and with "
            f"B + 1 = {len(ptr)}, got {list(scale.shape)} {scale.dtype} and {list(a.shape)} {a.dtype}"
        )
    _check_ptr("graph_scale", ptr, a)
    if eager(scale, a):
        return _graph_scale.direct(scale, a, ptr)
    return _graph_scale(scale, a, ptr)
