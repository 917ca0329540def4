"""torch_scatter.scatter: reduce to the places that an index names."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    by_column,
    computable,
    count_rows,
    fold,
    fold_index,
    scatter_extreme,
    scatter_rows,
    size_along,
    unfold,
)


def _reduced(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, reduce: str) -> Tensor:
    size = size_along(index, dim, out, dim_size)
    index = fold_index(index, src, dim)
    rows = fold(computable(src), dim)
    if out is None:
        return unfold(scatter_rows(rows, index, size, reduce), src, dim).to(src.dtype)
    if reduce == "mul":
        return out.mul_(unfold(scatter_rows(rows, index, size, reduce), src, dim))
    total = out + unfold(scatter_rows(rows, index, size, "sum"), src, dim)
    if reduce == "mean":
        # What was there before counts among the sum, not among the number of terms.
        count = count_rows(rows, index, size)
        terms = by_column(fold(total, dim), count.size(1))
        count = count.unsqueeze(2)
        terms = terms / count if terms.is_floating_point() else terms.div(count, rounding_mode="floor")
        total = unfold(terms.flatten(1), src, dim)
    return out.copy_(total)


def _extreme(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, largest: bool
) -> tuple[Tensor, Tensor]:
    size = size_along(index, dim, out, dim_size)
    index = fold_index(index, src, dim)
    values, arg = scatter_extreme(fold(computable(src), dim), index, size, largest)
    values, arg = unfold(values, src, dim).to(src.dtype), unfold(arg, src, dim)
    if out is None:
        return values, arg
    length = src.size(dim)
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
        dim_size: size of the result along ``dim`` without ``out``; by default 1 + the largest index, which
            torch.compile cannot know.
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
