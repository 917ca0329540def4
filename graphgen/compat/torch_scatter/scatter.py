"""torch_scatter.scatter: reduce to the places that an index names."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    computable,
    fold,
    group_rows,
    segment_max,
    segment_min,
    segment_reduce,
    size_along,
    unfold,
)


def _reduced(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, reduce: str) -> Tensor:
    size = size_along(index, dim, out, dim_size)
    rows, keys, apart = fold(computable(src), index, dim, size)
    ptr, order = group_rows(keys, size * apart)
    if out is None or reduce != "mean":
        found = unfold(segment_reduce(rows, ptr, reduce, order), src, dim, size)
        if out is None:
            return found.to(src.dtype)
        return out.add_(found) if reduce == "sum" else out.mul_(found)
    # What was there before counts among the sum, not among the number of terms.
    total = out + unfold(segment_reduce(rows, ptr, "sum", order), src, dim, size)
    count = ptr.diff().clamp(min=1).unsqueeze(-1).expand(ptr.size(0) - 1, rows.size(1))
    count = unfold(count, src, dim, size)
    mean = total / count if total.is_floating_point() else total.div(count, rounding_mode="floor")
    return out.copy_(mean)


def _extreme(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, largest: bool
) -> tuple[Tensor, Tensor]:
    size = size_along(index, dim, out, dim_size)
    length = src.size(dim)
    rows, keys, apart = fold(computable(src), index, dim, size)
    ptr, order = group_rows(keys, size * apart)
    values, arg = segment_max(rows, ptr, order) if largest else segment_min(rows, ptr, order)
    if apart > 1:
        arg = arg.div(apart, rounding_mode="floor")
    values = unfold(values, src, dim, size).to(src.dtype)
    arg = unfold(arg, src, dim, size)
    if out is None:
        return values, arg
    better = values > out if largest else values < out
    better = (better | values.isnan()) & (arg < length)
    out.copy_(torch.where(better, values, out))
    return out, arg.masked_fill(~better, length)


def scatter_sum(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sum; see :func:`scatter`."""
    return _reduced(src, index, dim, out, dim_size, "sum")


def scatter_add(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sum; see :func:`scatter`."""
    return _reduced(src, index, dim, out, dim_size, "sum")


def scatter_mul(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Product, 1 where nothing arrives; see :func:`scatter`."""
    return _reduced(src, index, dim, out, dim_size, "mul")


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Mean, of integers rounded down; see :func:`scatter`."""
    return _reduced(src, index, dim, out, dim_size, "mean")


def scatter_min(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minimum and, int64, where along ``dim`` it first occurs; ``src.size(dim)`` where nothing arrives.

    Where what ``out`` held before is no larger, it stays and the place is ``src.size(dim)``. See :func:`scatter`.
    """
    return _extreme(src, index, dim, out, dim_size, False)


def scatter_max(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maximum; otherwise as :func:`scatter_min`."""
    return _extreme(src, index, dim, out, dim_size, True)


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the entries of ``src`` that share an index: ``out[.., index[.., e, ..], ..]`` from ``src[.., e, ..]``.

    Args:
        src: any shape; floating point or integer.
        index: int64 or int32. A vector along ``dim``, or a tensor that broadcasts to the shape of ``src`` once
            dimensions missing at its end are added.
        dim: the dimension reduced.
        out: where to accumulate: its values take part. Returned.
        dim_size: size of the result along ``dim`` without ``out``; by default 1 + the largest index.
        reduce: "sum" or "add", "mul", "mean", "min", "max". Where nothing arrives: 0, for "mul" 1.

    Returns:
        The shape of ``src`` with another size along ``dim``.

    Raises:
        IndexError: an index outside [0, size), on the CPU.
        RuntimeError: an index that does not broadcast.
        ValueError: another reduce.
    """
    if reduce == "sum" or reduce == "add":
        return _reduced(src, index, dim, out, dim_size, "sum")
    if reduce == "mul" or reduce == "mean":
        return _reduced(src, index, dim, out, dim_size, reduce)
    if reduce == "min":
        return _extreme(src, index, dim, out, dim_size, False)[0]
    if reduce == "max":
        return _extreme(src, index, dim, out, dim_size, True)[0]
    raise ValueError("scatter: reduce must be sum, add, mul, mean, min or max, got " + reduce)
