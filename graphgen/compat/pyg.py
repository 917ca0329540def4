"""Aggregation for PyTorch Geometric."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.nn import aggr

from graphgen import ops

_REDUCES = ("sum", "mean", "max", "min", "mul")


class Aggregation(aggr.Aggregation):
    """What a ``MessagePassing`` layer of PyTorch Geometric takes as ``aggr``, on :func:`graphgen.ops.scatter`.

    The same values as the aggregation that PyTorch Geometric has under that name, and the same bits in every run.

    Args:
        reduce: "sum", "mean", "max", "min" or "mul".
    """

    def __init__(self, reduce: str = "sum") -> None:
        super().__init__()
        if reduce not in _REDUCES:
            raise ValueError(f"Aggregation: reduce must be one of {', '.join(_REDUCES)}, got {reduce!r}")
        self.reduce_name = reduce

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """[.., E, ..] -> [.., N, ..] along ``dim``, by an index [E] or by boundaries ptr [N + 1]."""
        if ptr is not None:
            return ops.segment_reduce(x.movedim(dim, 0), ptr, self.reduce_name).movedim(0, dim)
        assert index is not None
        return ops.scatter(x, index, dim, dim_size, self.reduce_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reduce_name!r})"
