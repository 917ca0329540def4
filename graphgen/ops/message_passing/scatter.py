"""Reduce rows by an index, and gather them by one."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, loop_batch
from graphgen.ops.message_passing.segments import (
    _check_reduce,
    _extreme_kernel,
    _extreme_vjp,
    _pick,
    _place,
    _segment_others,
    _segment_reduce_kernel,
)

# Scatter and gather take rows as columns side by side: index [L, K] moves src [L, K * w] by K columns of w features.
# A 1-D index moves whole rows, one of K = F every element for itself.
#
# On the CPU each thread reads the whole index, in order, and takes what arrives at its own part of the result. On CUDA
# a stable sort by index makes segments of the rows. Both add in the order of src, so neither needs atomics and the
# bits are the same every time.


def _width(index: Tensor) -> int:
    return 1 if index.dim() == 1 else index.shape[1]


def _check_index(name: str, src: Tensor, index: Tensor) -> None:
    if index.dim() not in (1, 2) or index.shape[0] != src.shape[0] or index.dtype not in _native.INDICES:
        raise ValueError(f"{name}: index needs integers for {src.shape[0]} rows, got {list(index.shape)} {index.dtype}")


def _group_rows_kernel(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    index = index.contiguous()
    if not index.is_cpu:
        ordered, order = index.sort(stable=True)
        ptr = torch.searchsorted(ordered, torch.arange(size + 1, dtype=index.dtype, device=index.device))
        return ptr.to(index.dtype), order.to(index.dtype)
    ptr, order = index.new_empty(size + 1), torch.empty_like(index)
    sizes = (index.shape[0], size, _native.INDICES[index.dtype])
    _native.call(_C.group_rows, index, index.data_ptr(), ptr.data_ptr(), order.data_ptr(), *sizes)
    return ptr, order


def _element_keys_kernel(index: Tensor, size: int) -> Tensor:
    columns = index.shape[1]
    outside = (index < 0) | (index >= size)
    if index.is_cpu and bool(outside.any()):
        position = outside.nonzero()[0].tolist()
        raise IndexError(f"index: position {position} has {int(index[tuple(position)])}, which is not in [0, {size})")
    column = torch.arange(columns, device=index.device)
    return torch.where(outside, -1, index.long() * columns + column).flatten()


def _by_rows(group_rows, element_keys, src: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A scatter as segments: (rows of one column of src each, their ptr and order)."""
    if index.dim() == 1 or index.shape[1] == 1:
        return src, *group_rows(index.reshape(index.shape[0]), size)
    length, columns = index.shape
    rows = src.reshape(length * columns, src.shape[1] // max(columns, 1))
    return rows, *group_rows(element_keys(index, size), size * columns)


def _scatter_directly(src: Tensor, index: Tensor, size: int, reduce: str, arg: Tensor | None) -> Tensor:
    if src.dtype == torch.bfloat16:
        return _scatter_directly(src.float(), index, size, reduce, arg).bfloat16()
    src, index = src.contiguous(), index.contiguous()
    features, columns = src.shape[1], _width(index)
    out = src.new_empty((size, features))
    arrived = torch.empty((size, columns), dtype=torch.int64)
    _native.call(
        _C.scatter,
        src,
        src.data_ptr(),
        index.data_ptr(),
        out.data_ptr(),
        0 if arg is None else arg.data_ptr(),
        arrived.data_ptr(),
        src.shape[0],
        size,
        features,
        columns,
        _native.ROWS[src.dtype],
        _native.INDICES[index.dtype],
        _native.ROW_REDUCES[reduce],
    )
    return out


def _scatter_extreme_kernel(reduce: str):
    segment_extreme = _extreme_kernel(reduce)

    def kernel(src: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
        _check_index(f"scatter_{reduce}", src, index)
        if src.is_cpu and src.dtype in _native.ROWS:
            arg = torch.empty((size, src.shape[1]), dtype=torch.int64)
            return _scatter_directly(src, index, size, reduce, arg), arg
        rows = _by_rows(_group_rows_kernel, _element_keys_kernel, src, index, size)
        values, arg = segment_extreme(*rows)
        shape = (size, src.shape[1])
        return values.reshape(shape), arg.reshape(shape) // max(_width(index), 1)

    return kernel


_extreme_kernels = {reduce: _scatter_extreme_kernel(reduce) for reduce in ("max", "min")}


def _scatter_rows_kernel(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    _check_index("scatter", src, index)
    if src.is_cpu and src.dtype in _native.ROWS:
        if reduce in _extreme_kernels:
            return _extreme_kernels[reduce](src, index, size)[0]
        return _scatter_directly(src, index, size, reduce, None)
    rows, ptr, order = _by_rows(_group_rows_kernel, _element_keys_kernel, src, index, size)
    return _segment_reduce_kernel(rows, ptr, reduce, order).reshape(size, src.shape[1])


def _gather_kernel(src: Tensor, index: Tensor) -> Tensor:
    columns = _width(index)
    if not _native.runs_rows(src):
        parts = src.unflatten(1, (columns, src.shape[1] // max(columns, 1)))
        return parts[index.reshape(-1, columns), torch.arange(columns, device=src.device)].flatten(1)
    src, index = src.contiguous(), index.contiguous()
    rows, features = src.shape
    out = src.new_empty((index.shape[0], features))
    sizes = (rows, features, index.shape[0], columns, _native.ROWS[src.dtype], _native.INDICES[index.dtype])
    _native.call(_C.gather, src, src.data_ptr(), index.data_ptr(), out.data_ptr(), *sizes)
    return out


def _others(src: Tensor, index: Tensor, size: int) -> Tensor:
    return _segment_others(*_by_rows(_group_rows, _element_keys, src, index, size)).reshape(src.shape)


def _over_counts(grad: Tensor, index: Tensor, size: int) -> Tensor:
    columns = _width(index)
    ones = torch.ones((index.shape[0], columns), dtype=grad.dtype, device=grad.device)
    counts = _scatter_rows(ones, index, size, "sum").clamp(min=1)
    return grad / (counts if columns == 1 else counts.repeat_interleave(grad.shape[1] // max(columns, 1), 1))


def _scatter_rows_vjp(args, grad, needs):
    src, index, size, reduce = args
    if reduce in _extremes:
        out = _place(grad, _extremes[reduce](src, index, size)[1], src.shape[0])
    elif reduce == "mul":
        out = _gather(grad, index) * _others(src, index, size)
    else:
        out = _gather(_over_counts(grad, index, size) if reduce == "mean" else grad, index)
    return out, None, None, None


def _scatter_rows_jvp(args, tangents):
    src, index, size, reduce = args
    if reduce in _extremes:
        return _pick(tangents[0], _extremes[reduce](src, index, size)[1])
    if reduce == "mul":
        return _scatter_rows(tangents[0] * _others(src, index, size), index, size, "sum")
    return _scatter_rows(tangents[0], index, size, reduce)


def _vmap(op_of):
    """vmap that widens the columns by the batch; a batched index is looped over."""

    def vmap(args, in_dims, size):
        op, (src, index, *rest) = op_of(), args
        if in_dims[1] is not None:
            return loop_batch(op, args, in_dims, size)
        columns, src = _width(index), src.movedim(in_dims[0], 1)
        shape = (columns, src.shape[2] // max(columns, 1))
        wide = src.unflatten(2, shape).movedim(1, 2).flatten(1)

        def narrow(out: Tensor) -> Tensor:
            return out.unflatten(1, (columns, size, shape[1])).movedim(2, 1).flatten(2)

        out = op(wide, index, *rest)
        return (tuple(map(narrow, out)), (1,) * len(out)) if op.has_many else (narrow(out), 1)

    return vmap


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
_scatter_rows: Op = Op(
    "scatter_rows",
    "(Tensor src, Tensor index, SymInt size, str reduce) -> Tensor",
    _scatter_rows_kernel,
    lambda src, index, size, reduce: src.new_empty((size, src.shape[1])),
    _scatter_rows_vjp,
    _scatter_rows_jvp,
    _vmap(lambda: _scatter_rows),
)
_extremes: dict[str, Op] = {
    reduce: Op(
        f"scatter_{reduce}",
        "(Tensor src, Tensor index, SymInt size) -> (Tensor, Tensor)",
        _extreme_kernels[reduce],
        lambda src, index, size: (
            src.new_empty((size, src.shape[1])),
            src.new_empty((size, src.shape[1]), dtype=torch.int64),
        ),
        _extreme_vjp,
        lambda args, tangents: (_pick(tangents[0], args[4]), None),
        _vmap(lambda reduce=reduce: _extremes[reduce]),
        keeps_result=True,
    )
    for reduce in ("max", "min")
}
_gather: Op = Op(
    "gather",
    "(Tensor src, Tensor index) -> Tensor",
    _gather_kernel,
    lambda src, index: src.new_empty((index.shape[0], src.shape[1])),
    lambda args, grad, needs: (_scatter_rows(grad, args[1], args[0].shape[0], "sum"), None),
    lambda args, tangents: _gather(tangents[0], args[1]),
    _vmap(lambda: _gather),
)


def _aligned(name: str, src: Tensor, index: Tensor, dim: int) -> tuple[Tensor, int]:
    """The index with the dimensions of src, of size 1 where it says nothing; and dim, counted from the front.

    A 1-D index stays what it is.
    """
    if index.dtype not in _native.INDICES:
        raise ValueError(f"{name}: index must be int32 or int64, got {index.dtype}")
    if src.device != index.device:
        raise ValueError(f"{name}: src is on {src.device}, index on {index.device}; move one")
    dims = src.dim()
    if not -dims <= dim < dims:
        raise ValueError(f"{name}: src {list(src.shape)} has no dimension {dim}")
    dim %= dims
    if index.dim() == 1:
        return index, dim
    shape = [*index.shape, *(1,) * (dims - index.dim())]
    if not 0 < index.dim() <= dims or any(
        at != dim and size not in (1, of_src) for at, (size, of_src) in enumerate(zip(shape, src.shape, strict=True))
    ):
        raise ValueError(f"{name}: index {list(index.shape)} does not fit src {list(src.shape)} along dimension {dim}")
    return index.reshape(shape), dim


def _columns(index: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """An aligned index as [L], or as [L, K] for as few columns as it tells apart."""
    if index.dim() == 1:
        return index
    length, before, behind = index.shape[dim], shape[:dim], shape[dim + 1 :]

    def varies(dims: range) -> bool:
        return any(index.shape[at] != 1 and (index.stride(at) != 0 or index.shape[at] == 0) for at in dims)

    if varies(range(dim + 1, len(shape))):
        columns = prod(before) * prod(behind)
        return index.expand(*before, length, *behind).movedim(dim, 0).reshape(length, columns)
    index = index[(slice(None),) * (dim + 1) + (0,) * len(behind)]
    if varies(range(dim)):
        return index.expand(*before, length).movedim(dim, 0).reshape(length, prod(before))
    return index[(0,) * dim]


def _call(op: Op, src: Tensor, *rest):
    return op.direct(src, *rest) if eager(src, rest[0]) else op(src, *rest)


def _flat(src: Tensor, dim: int) -> Tensor:
    if dim == 0 and src.dim() == 2:
        return src
    return src.movedim(dim, 0).reshape(src.shape[dim], prod(src.shape[:dim]) * prod(src.shape[dim + 1 :]))


def _unflat(out: Tensor, src: Tensor, dim: int) -> Tensor:
    if dim == 0 and src.dim() == 2:
        return out
    return out.reshape(out.shape[0], *src.shape[:dim], *src.shape[dim + 1 :]).movedim(0, dim)


def _arguments(
    name: str, src: Tensor, index: Tensor, dim: int, dim_size: int | None
) -> tuple[Tensor, Tensor, int, int]:
    """(src [L, F], index [L, K], length of the result, dim from the front) of any scatter."""
    index, dim = _aligned(name, src, index, dim)
    length = src.shape[dim]
    along = 0 if index.dim() == 1 else dim
    positions = index.shape[along]
    if positions not in (1, length):
        raise ValueError(f"{name}: index has {positions} positions for {length} along dimension {dim} of src")
    if dim_size is None:
        dim_size = int(index.max()) + 1 if index.numel() else 0
    elif dim_size < 0:
        raise ValueError(f"{name}: dim_size must not be negative, got {dim_size}")
    if positions != length:
        index = index.expand(*index.shape[:along], length, *index.shape[along + 1 :])
    return _flat(src, dim), _columns(index, dim, src.shape), dim_size, dim


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
    flat, table, size, at = _arguments("scatter", src, index, dim, dim_size)
    return _unflat(_call(_scatter_rows, flat, table, size, reduce), src, at)


def _scatter_extreme(name, reduce, src, index, dim, dim_size) -> tuple[Tensor, Tensor]:
    flat, table, size, at = _arguments(name, src, index, dim, dim_size)
    values, arg = _call(_extremes[reduce], flat, table, size)
    return _unflat(values, src, at), _unflat(arg, src, at)


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
    return _unflat(_call(_gather, _flat(src, dim), _columns(index, dim, src.shape)), src, dim)
