"""torch_scatter.composite.logsumexp."""

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


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """``log(sum of exp(src) + eps)`` over the entries that share an index, without overflow.

    Args:
        src: any shape, floating point. index, dim, dim_size: as for scatter.
        out: logarithms to which those of ``src`` are added: its values count as entries. Returned.
        eps: added to the sum after the largest entry was taken out.

    Returns:
        As scatter; 0 where nothing arrives, and where all that arrives is -inf.

    Raises:
        ValueError: integers. Otherwise as scatter.
    """
    if not torch.is_floating_point(src):
        raise ValueError("scatter_logsumexp: src must be floating point")
    size = size_along(index, dim, out, dim_size)
    index = fold_index(index, src, dim)
    rows = fold(computable(src), dim)
    largest, arg = scatter_extreme(rows.detach(), index, size, True)
    largest = largest.masked_fill(arg == rows.size(0), float("-inf"))
    before = largest
    if out is not None:
        before = fold(computable(out), dim)
        largest = torch.maximum(largest, before.detach())
    # The shift cancels, so no derivative has to go through it; infinities stay where they are.
    shift = largest.masked_fill(largest.isinf(), 0.0)
    sums = scatter_rows((rows - gather_rows(shift, index)).exp(), index, size, "sum")
    if out is not None:
        sums = sums + (before - shift).exp()
    found = ((sums + eps).log() + shift).masked_fill(largest == float("-inf"), 0.0)
    found = unfold(found, src, dim).to(src.dtype)
    return found if out is None else out.copy_(found)
