"""torch_scatter.composite.std."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    by_column,
    computable,
    count_rows,
    fold,
    fold_index,
    gather_rows,
    scatter_rows,
    size_along,
    unfold,
)


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Standard deviation of the entries of ``src`` that share an index: the root of squares over (count + 1e-6).

    Args:
        src: any shape; integers count as float32. index, dim, dim_size: as for scatter.
        out: sums of squared deviations to which those of ``src`` are added; not what is returned.
        unbiased: divide by one less than the number of entries (and at least 1).

    Returns:
        As scatter; 0 where nothing arrives.

    Raises:
        As scatter.
    """
    if not torch.is_floating_point(src):
        src = src.float()
    size = size_along(index, dim, out, dim_size)
    index = fold_index(index, src, dim)
    rows = fold(computable(src), dim)
    mean = scatter_rows(rows, index, size, "mean")
    sums = scatter_rows((rows - gather_rows(mean, index)).square(), index, size, "sum")
    if out is not None:
        out.add_(unfold(sums, src, dim))
        sums = fold(computable(out), dim)
    count = count_rows(rows, index, size)
    if unbiased:
        count = (count - 1).clamp(min=1)
    variance = (by_column(sums, count.size(1)) / (count + 1e-6).unsqueeze(2)).flatten(1)
    # The root has no derivative at 0, where the deviation is stationary.
    some = variance > 0
    root = torch.where(some, variance, torch.ones_like(variance)).sqrt() * some
    return unfold(root, src, dim).to(src.dtype)
