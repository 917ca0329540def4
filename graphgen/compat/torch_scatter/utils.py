"""torch_scatter.utils."""

from __future__ import annotations

from torch import Tensor


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """A view of ``src`` in the shape of ``other``: a vector lies along ``dim``, missing dimensions come last."""
    if src.dim() == 1:
        place = dim if dim >= 0 else other.dim() + dim
        for _ in range(place):
            src = src.unsqueeze(0)
    for _ in range(other.dim() - src.dim()):
        src = src.unsqueeze(-1)
    return src.expand(other.shape)
