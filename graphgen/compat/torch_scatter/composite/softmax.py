"""torch_scatter.composite.softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    computable,
    fold,
    fold_index,
    gather_rows,
    scatter_extreme,
    scatter_rows,
    size_along,
    unfold,
)


def _recentred(src: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    """Rows less the largest of their group.

    The shift cancels in what it is used for, so no derivative has to go through it.
    """
    rows = fold(computable(src), dim)
    largest, _ = scatter_extreme(rows.detach(), index, size, True)
    return rows - gather_rows(largest, index)


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
    size = size_along(index, dim, None, dim_size)
    index = fold_index(index, src, dim)
    powers = _recentred(src, index, dim, size).exp()
    sums = scatter_rows(powers, index, size, "sum")
    return unfold(powers / gather_rows(sums, index), src, dim).to(src.dtype)


def scatter_log_softmax(
    src: Tensor, index: Tensor, dim: int = -1, eps: float = 1e-12, dim_size: int | None = None
) -> Tensor:
    """Logarithm of :func:`scatter_softmax`; ``eps`` is added to the sums of exponentials.

    Args, returns, raises: as scatter_softmax.
    """
    if not torch.is_floating_point(src):
        raise ValueError("scatter_log_softmax: src must be floating point")
    size = size_along(index, dim, None, dim_size)
    index = fold_index(index, src, dim)
    rows = _recentred(src, index, dim, size)
    logarithms = (scatter_rows(rows.exp(), index, size, "sum") + eps).log()
    return unfold(rows - gather_rows(logarithms, index), src, dim).to(src.dtype)
