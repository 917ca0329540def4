"""torch_scatter.composite.softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    computable,
    fold,
    group_rows,
    segment_broadcast,
    segment_max,
    segment_reduce,
    size_along,
    unfold,
)


def _recentred(src: Tensor, index: Tensor, dim: int, dim_size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(rows less the largest of their group, their groups).

    The shift cancels in what it is used for, so no derivative has to go through it.
    """
    size = size_along(index, dim, None, dim_size)
    rows, keys, apart = fold(computable(src), index, dim, size)
    ptr, order = group_rows(keys, size * apart)
    largest, _ = segment_max(rows.detach(), ptr, order)
    return rows - segment_broadcast(largest, ptr, rows.size(0), order), ptr, order


def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
    """Softmax over the entries of ``src`` that share an index.

    Args:
        src: any shape, floating point. index, dim, dim_size: as for scatter.

    Returns:
        The shape of ``src``.

    Raises:
        ValueError: integers. Otherwise as scatter.
    """
    if not torch.is_floating_point(src):
        raise ValueError("scatter_softmax: src must be floating point")
    rows, ptr, order = _recentred(src, index, dim, dim_size)
    powers = rows.exp()
    sums = segment_broadcast(segment_reduce(powers, ptr, "sum", order), ptr, rows.size(0), order)
    return unfold(powers / sums, src, dim, src.size(dim)).to(src.dtype)


def scatter_log_softmax(
    src: Tensor, index: Tensor, dim: int = -1, eps: float = 1e-12, dim_size: int | None = None
) -> Tensor:
    """Logarithm of :func:`scatter_softmax`; ``eps`` is added to the sums of exponentials.

    Args, returns, raises: as scatter_softmax.
    """
    if not torch.is_floating_point(src):
        raise ValueError("scatter_log_softmax: src must be floating point")
    rows, ptr, order = _recentred(src, index, dim, dim_size)
    logarithms = (segment_reduce(rows.exp(), ptr, "sum", order) + eps).log()
    return unfold(rows - segment_broadcast(logarithms, ptr, rows.size(0), order), src, dim, src.size(dim)).to(src.dtype)
