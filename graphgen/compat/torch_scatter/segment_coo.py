"""torch_scatter.segment_coo: reduce to, and gather from, the places that an ascending index names."""

from __future__ import annotations

from torch import Tensor

from graphgen.compat.torch_scatter._rows import check, computable, fold, gather_rows, product, write
from graphgen.compat.torch_scatter.scatter import scatter, scatter_max, scatter_mean, scatter_min, scatter_sum


def segment_sum_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Sum; see :func:`segment_coo`."""
    return scatter_sum(src, index, index.dim() - 1, out, dim_size)


def segment_add_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Sum; see :func:`segment_coo`."""
    return scatter_sum(src, index, index.dim() - 1, out, dim_size)


def segment_mean_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Mean, of integers rounded down; see :func:`segment_coo`."""
    return scatter_mean(src, index, index.dim() - 1, out, dim_size)


def segment_min_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minimum and where it first occurs, as :func:`scatter_min`; see :func:`segment_coo`."""
    return scatter_min(src, index, index.dim() - 1, out, dim_size)


def segment_max_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maximum and where it first occurs, as :func:`scatter_max`; see :func:`segment_coo`."""
    return scatter_max(src, index, index.dim() - 1, out, dim_size)


def segment_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """:func:`scatter` along the last dimension of ``index``, whose own dimensions are the first of ``src``.

    Args:
        src: [.., E, ..].
        index: [.., E], ascending along E; the dimensions before E broadcast. (An index in any order is served too.)
        out, dim_size: as for scatter.
        reduce: "sum" or "add", "mean", "min", "max"; 0 where nothing arrives.

    Raises:
        IndexError, RuntimeError, ValueError: as scatter.
    """
    if reduce == "mul":
        raise ValueError("segment_coo: reduce must be sum, add, mean, min or max, got mul")
    return scatter(src, index, index.dim() - 1, out, dim_size, reduce)


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """``out[.., e, ..] = src[.., index[.., e], ..]``, the transpose of :func:`segment_coo`.

    Args:
        src: [.., N, ..].
        index: [.., E], its own dimensions are the first of ``src``.
        out: [.., E, ..], where to write the result. Returned.

    Raises:
        IndexError: an index outside [0, N), on the CPU.
        RuntimeError: an index that does not broadcast.
        ValueError: an ``out`` of another shape.
    """
    check(src, index)
    dim = index.dim() - 1
    shape = list(src.shape)
    shape[dim] = index.size(dim)
    if dim > 0:
        # One column for each of the batches before dim.
        index = index.expand(shape[: dim + 1]).movedim(dim, 0).reshape(shape[dim], product(shape[:dim]))
    found = gather_rows(fold(computable(src), dim), index)
    moved = [shape[dim]] + shape[:dim] + shape[dim + 1 :]
    return write(found.reshape(moved).movedim(0, dim).contiguous().to(src.dtype), out)
