"""torch_scatter.composite.std."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.compat.torch_scatter._rows import (
    computable,
    fold,
    group_rows,
    segment_broadcast,
    segment_reduce,
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
    rows, keys, apart = fold(computable(src), index, dim, size)
    ptr, order = group_rows(keys, size * apart)
    mean = segment_reduce(rows, ptr, "mean", order)
    squares = (rows - segment_broadcast(mean, ptr, rows.size(0), order)).square()
    sums = segment_reduce(squares, ptr, "sum", order)
    if out is not None:
        out.add_(unfold(sums, src, dim, size))
        sums = fold(computable(out), torch.arange(size, device=out.device), dim, size)[0].reshape(sums.shape)
    count = ptr.diff() - 1 if unbiased else ptr.diff()
    variance = sums / (count.clamp(min=1) + 1e-6).to(rows.dtype).unsqueeze(-1)
    # The root has no derivative at 0, where the deviation is stationary.
    some = variance > 0
    root = torch.where(some, variance, torch.ones_like(variance)).sqrt() * some
    return unfold(root, src, dim, size).to(src.dtype)
