"""Reduce rows by an index, and gather them by one."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, fold_batch, loop_batch, unfold_batch
from graphgen.ops.message_passing.segments import _check_reduce, _extremes, _segment_reduce
from graphgen.ops.reference import message_passing as reference

# A scatter is a stable sort of the index and a segment op in that order, so it adds in the order of the rows, needs no
# atomics, and has the derivatives of the segment op. An index that differs from column to column is one key per
# element, over rows of one feature.


def _group_rows_kernel(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    index = index.contiguous()
    if index.device.type != "cpu":
        ordered, order = index.sort(stable=True)
        ptr = torch.searchsorted(ordered, torch.arange(size + 1, dtype=index.dtype, device=index.device))
        return ptr.to(index.dtype), order.to(index.dtype)
    ptr, order = index.new_empty(size + 1), torch.empty_like(index)
    sizes = (index.shape[0], size, _native.INDICES[index.dtype])
    _native.call(_C.group_rows, index, index.data_ptr(), ptr.data_ptr(), order.data_ptr(), *sizes)
    return ptr, order


def _element_keys_kernel(index: Tensor, size: int) -> Tensor:
    columns = index.shape[1]
    column = torch.arange(columns, device=index.device)
    outside = (index < 0) | (index >= size)
    if index.device.type == "cpu" and bool(outside.any()):
        position = outside.nonzero()[0].tolist()
        raise IndexError(f"index: position {position} has {int(index[tuple(position)])}, which is not in [0, {size})")
    return torch.where(outside, -1, index.long() * columns + column).flatten()


def _gather_kernel(src: Tensor, index: Tensor) -> Tensor:
    if not _native.runs_rows(src):
        return reference.gather(src, index)
    src, index = src.contiguous(), index.contiguous()
    rows, features = src.shape
    out = src.new_empty((index.shape[0], features))
    sizes = (rows, features, index.shape[0], _native.ROWS[src.dtype], _native.INDICES[index.dtype])
    _native.call(_C.gather, src, src.data_ptr(), index.data_ptr(), out.data_ptr(), *sizes)
    return out


def _gather_vjp(args, grad, needs):
    src, index = args
    ptr, order = _group_rows(index, src.shape[0])
    return _segment_reduce(grad, ptr, "sum", order), None


def _gather_vmap(args, in_dims, size):
    src, index = args
    if in_dims[1] is not None:
        return loop_batch(_gather, args, in_dims, size)
    features = src.shape[-1 if in_dims[0] % src.dim() < src.dim() - 1 else -2]
    return unfold_batch(_gather(fold_batch(src, in_dims[0], size), index), size, features)


_group_rows: Op = Op(
    "group_rows",
    "(Tensor index, SymInt size) -> (Tensor, Tensor)",
    _group_rows_kernel,
    lambda index, size: (index.new_empty(size + 1), index.new_empty(index.shape)),
    lambda args, grads, needs: (None, None),
    lambda args, tangents: (None, None),
    lambda args, in_dims, size: loop_batch(_group_rows, args, in_dims, size),
)
_element_keys: Op = Op(
    "element_keys",
    "(Tensor index, SymInt size) -> Tensor",
    _element_keys_kernel,
    lambda index, size: index.new_empty(index.shape[0] * index.shape[1], dtype=torch.int64),
    lambda args, grad, needs: (None, None),
    lambda args, tangents: None,
    lambda args, in_dims, size: loop_batch(_element_keys, args, in_dims, size),
)
_gather: Op = Op(
    "gather",
    "(Tensor src, Tensor index) -> Tensor",
    _gather_kernel,
    lambda src, index: src.new_empty((index.shape[0], src.shape[1])),
    _gather_vjp,
    lambda args, tangents: _gather(tangents[0], args[1]),
    _gather_vmap,
)


def _aligned(name: str, src: Tensor, index: Tensor, dim: int) -> tuple[Tensor, int]:
    """The index with the dimensions of src, of size 1 where it says nothing; and dim, counted from the front."""
    if index.dtype not in _native.INDICES:
        raise ValueError(f"{name}: index must be int32 or int64, got {index.dtype}")
    if src.device != index.device:
        raise ValueError(f"{name}: src is on {src.device}, index on {index.device}; move one")
    if not -src.dim() <= dim < src.dim():
        raise ValueError(f"{name}: src {list(src.shape)} has no dimension {dim}")
    dim %= src.dim()
    shape = list(index.shape)
    if len(shape) == 1:
        shape = [1] * dim + shape
    shape += [1] * (src.dim() - len(shape))
    if len(shape) != src.dim() or any(
        at != dim and size not in (1, of_src) for at, (size, of_src) in enumerate(zip(shape, src.shape, strict=True))
    ):
        raise ValueError(f"{name}: index {list(index.shape)} does not fit src {list(src.shape)} along dimension {dim}")
    return index.reshape(shape), dim


def _columns(index: Tensor, dim: int, shape: torch.Size) -> tuple[Tensor, int, int]:
    """An aligned index as [L, K] for the K columns it tells apart; K; and how many features of src each of them has."""
    length = index.shape[dim]
    before, behind = shape[:dim], shape[dim + 1 :]

    def varies(dims: range) -> bool:
        return any(index.shape[at] != 1 and (index.stride(at) != 0 or index.shape[at] == 0) for at in dims)

    if varies(range(dim + 1, len(shape))):
        columns, features = prod(before) * prod(behind), 1
        index = index.expand(*before, length, *behind)
    elif varies(range(dim)):
        columns, features = prod(before), prod(behind)
        index = index[(slice(None),) * (dim + 1) + (0,) * len(behind)].expand(*before, length)
    else:
        columns, features = 1, prod(before) * prod(behind)
        index = index[(0,) * dim + (slice(None),) + (0,) * len(behind)]
    return index.movedim(min(dim, index.dim() - 1), 0).reshape(length, columns), columns, features


def _keys(index: Tensor, columns: int, size: int) -> Tensor:
    return index.squeeze(1) if columns == 1 else _call(_element_keys, index, size)


def _call(op: Op, first: Tensor, *rest):
    return op.direct(first, *rest) if eager(first) else op(first, *rest)


def _rows(src: Tensor, dim: int, columns: int, features: int) -> Tensor:
    return src.movedim(dim, 0).reshape(src.shape[dim] * columns, features)


def _unrows(out: Tensor, src: Tensor, dim: int, length: int) -> Tensor:
    return out.reshape(length, *src.shape[:dim], *src.shape[dim + 1 :]).movedim(0, dim)


def _grouped(name: str, src: Tensor, index: Tensor, dim: int, dim_size: int | None):
    """What every scatter does first: (rows of src, their segments and order, how to shape the result)."""
    index, dim = _aligned(name, src, index, dim)
    length = src.shape[dim]
    if index.shape[dim] not in (1, length):
        raise ValueError(f"{name}: index has {index.shape[dim]} positions for {length} along dimension {dim} of src")
    if dim_size is None:
        dim_size = int(index.max()) + 1 if index.numel() else 0
    if dim_size < 0:
        raise ValueError(f"{name}: dim_size must not be negative, got {dim_size}")
    if index.shape[dim] != length:
        index = index.expand(*index.shape[:dim], length, *index.shape[dim + 1 :])
    if length > torch.iinfo(torch.int32).max:
        index = index.long()
    table, columns, features = _columns(index, dim, src.shape)
    ptr, order = _call(_group_rows, _keys(table, columns, dim_size), dim_size * columns)
    return _rows(src, dim, columns, features), ptr, order, (src, dim, dim_size), columns


def scatter(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None, reduce: str = "sum") -> Tensor:
    """Reduce the slices of src along dim that have the same index: ``out[index[l]] = reduce of src[l]``.

    Sums run in the order of src, so the bits do not depend on the number of threads, on CUDA neither.

    Args:
        src: any shape; dtypes as :func:`graphgen.ops.segment_reduce`.
        index: int32 or int64 in [0, dim_size). 1-D counts along dim. With more dimensions it stands on the first ones
            of src; where it has size 1 or no dimension, the same holds for all of src: an index of the shape of src
            is one per element.
        dim_size: length of the result along dim; None for ``index.max() + 1`` (0 for an empty index), which waits for
            a CUDA device and cannot be compiled.
        reduce: "sum", "mean", "max", "min" or "mul", as segment_reduce; where nothing arrives 0 ("mul": 1).

    Returns:
        src's shape, dim_size long along dim.

    Raises:
        IndexError: an index out of range, by position and value (CPU; a CUDA call leaves those elements out).
        ValueError: shapes, dtypes or devices that do not fit.
    """
    _check_reduce("scatter", reduce, _native.ROW_REDUCES)
    rows, ptr, order, (like, at, size), _ = _grouped("scatter", src, index, dim, dim_size)
    return _unrows(_call(_segment_reduce, rows, ptr, reduce, order), like, at, size)


def _scatter_extreme(name, reduce, src, index, dim, dim_size) -> tuple[Tensor, Tensor]:
    rows, ptr, order, (like, at, size), columns = _grouped(name, src, index, dim, dim_size)
    values, arg = _call(_extremes[reduce], rows, ptr, order)
    arg = arg if columns == 1 else arg // max(columns, 1)
    return _unrows(values, like, at, size), _unrows(arg, like, at, size)


def scatter_max(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> tuple[Tensor, Tensor]:
    """The maximum of what arrives at each index, and where it comes from.

    Args:
        src, index, dim, dim_size: as :func:`scatter`.

    Returns:
        values, differentiable, and arg (int64): the position along dim of the value, the lowest on ties, the first NaN
        if there is one. Where nothing arrives the value is 0 and the position ``src.shape[dim]``.

    Raises:
        IndexError, ValueError: as scatter.
    """
    return _scatter_extreme("scatter_max", "max", src, index, dim, dim_size)


def scatter_min(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> tuple[Tensor, Tensor]:
    """The minimum of what arrives at each index, and where it comes from; otherwise :func:`scatter_max`."""
    return _scatter_extreme("scatter_min", "min", src, index, dim, dim_size)


def gather(src: Tensor, index: Tensor, dim: int = 0) -> Tensor:
    """Slices of src by index, ``out[l] = src[index[l]]`` along dim: the transpose of a scatter sum.

    Args:
        src: any shape; dtypes as :func:`graphgen.ops.segment_reduce`.
        index: int32 or int64 in [0, src.shape[dim]), laid against src as by :func:`scatter`: 1-D for whole slices,
            up to one per element as ``torch.gather`` takes it.

    Returns:
        src's shape, as long as the index along dim.

    Raises:
        IndexError: an index out of range, by position and value (CPU; a CUDA call gives 0 there).
        ValueError: shapes, dtypes or devices that do not fit.
    """
    index, dim = _aligned("gather", src, index, dim)
    length = index.shape[dim]
    table, columns, features = _columns(index, dim, src.shape)
    keys = _keys(table, columns, src.shape[dim])
    return _unrows(_call(_gather, _rows(src, dim, columns, features), keys), src, dim, length)
