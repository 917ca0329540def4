"""Reduce over ragged rows, and its transpose."""

from __future__ import annotations

from math import prod

from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, fold_batch, loop_batch, unfold_batch
from graphgen.ops.reference import message_passing as reference


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
