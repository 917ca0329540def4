"""How a call in any number of dimensions becomes one on rows, and the kernels on rows.

Everything here also compiles as TorchScript, which sees the registered ops only; a trace is recorded through them too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphgen.compat.torch_scatter.utils import broadcast
from graphgen.ops._op import Op
from graphgen.ops.message_passing.scatter import _extremes as _scatter_extremes
from graphgen.ops.message_passing.scatter import _gather, _scatter_rows
from graphgen.ops.message_passing.segments import _extremes as _segment_extremes
from graphgen.ops.message_passing.segments import _segment_broadcast, _segment_reduce


def product(sizes: list[int]) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out


def check(src: Tensor, index: Tensor) -> None:
    if index.dtype != torch.long and index.dtype != torch.int:
        raise ValueError(f"an index must be int64 or int32, got {index.dtype}")
    if index.device != src.device:
        raise ValueError(f"src is on {src.device}, its index on {index.device}; move one")
    if src.dim() == 0 or index.dim() == 0:
        raise ValueError("src and its index need at least one dimension")


def computable(src: Tensor) -> Tensor:
    """In a dtype there are kernels for: halves as float32, small integers as int32."""
    if src.dtype == torch.half:
        return src.float()
    if src.dtype == torch.uint8 or src.dtype == torch.int8 or src.dtype == torch.int16 or src.dtype == torch.bool:
        return src.int()
    return src


def size_along(index: Tensor, dim: int, out: Tensor | None, dim_size: int | None) -> int:
    """How many places there are to reduce to."""
    if out is not None:
        return out.size(dim)
    if dim_size is not None:
        return dim_size
    return int(index.max()) + 1 if index.numel() > 0 else 0


def _is_plain(src: Tensor, dim: int) -> bool:
    """Whether rows are what the call is on already: most calls, and on a small graph turning them costs as much."""
    return src.dim() == 2 and (dim == 0 or dim == -2)


def fold(src: Tensor, dim: int) -> Tensor:
    """src as rows [L, F] along ``dim``."""
    if _is_plain(src, dim):
        return src
    moved = src.movedim(dim, 0)
    shape = list(moved.shape)
    return moved.reshape(shape[0], product(shape[1:]))


def unfold(rows: Tensor, src: Tensor, dim: int) -> Tensor:
    """Rows [size, F] in the shape of ``src`` with ``size`` along ``dim``."""
    if _is_plain(src, dim):
        return rows
    shape = list(src.movedim(dim, 0).shape)
    shape[0] = rows.size(0)
    return rows.reshape(shape).movedim(0, dim).contiguous()


def fold_index(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """The index of folded rows: [L], or [L, K] where it tells K columns of them apart."""
    check(src, index)
    if index.dim() == 1:
        return index if index.size(0) == src.size(dim) else index.expand(src.size(dim))
    index = broadcast(index, src, dim).movedim(dim, 0)
    # The dimensions from the first to the last in which it differs; one that was expanded has stride 0.
    kept = 1
    for d in range(1, index.dim()):
        if index.size(d) == 0 or (index.size(d) > 1 and index.stride(d) != 0):
            kept = d + 1
    for _ in range(index.dim() - kept):
        index = index.select(-1, 0)
    return index if kept == 1 else index.reshape(index.size(0), product(list(index.shape[1:])))


def write(found: Tensor, out: Tensor | None) -> Tensor:
    """The result, into ``out`` if there is one."""
    if out is None:
        return found
    if out.shape != found.shape:
        raise ValueError(f"out must have shape {list(found.shape)}, got {list(out.shape)}")
    return out.copy_(found)


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _run(op: Op, *args: Any) -> Any:
    """The op; while torch.jit.trace is at work, which records registered ops and nothing else, as one of those."""
    return (op if torch._C._get_tracing_state() is None else op.registered)(*args)


def scatter_rows(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.scatter_rows(src, index, size, reduce)
    else:
        return _run(_scatter_rows, src, index, size, reduce)


def scatter_extreme(src: Tensor, index: Tensor, size: int, largest: bool) -> tuple[Tensor, Tensor]:
    if torch.jit.is_scripting():
        if largest:
            return torch.ops.graphgen.scatter_max(src, index, size)
        return torch.ops.graphgen.scatter_min(src, index, size)
    else:
        return _run(_scatter_extremes["max" if largest else "min"], src, index, size)


def gather_rows(src: Tensor, index: Tensor) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.gather(src, index)
    else:
        return _run(_gather, src, index)


def count_rows(like: Tensor, index: Tensor, size: int) -> Tensor:
    """How many rows arrive at each place of a scatter, 1 where none does: [size, 1 or the columns of the index]."""
    columns = 1 if index.dim() == 1 else index.size(1)
    return scatter_rows(like.new_ones([index.size(0), columns]), index, size, "sum").clamp(min=1)


def by_column(rows: Tensor, columns: int) -> Tensor:
    """[size, F] as [size, columns, F / columns], against which counts [size, columns, 1] broadcast."""
    return rows.reshape(rows.size(0), columns, rows.size(1) // max(columns, 1))


def segment_reduce(src: Tensor, ptr: Tensor, reduce: str) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.segment_reduce(src, ptr, reduce, None)
    else:
        return _run(_segment_reduce, src, ptr, reduce, None)


def segment_extreme(src: Tensor, ptr: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    if torch.jit.is_scripting():
        if largest:
            return torch.ops.graphgen.segment_max(src, ptr, None)
        return torch.ops.graphgen.segment_min(src, ptr, None)
    else:
        return _run(_segment_extremes["max" if largest else "min"], src, ptr, None)


def segment_broadcast(src: Tensor, ptr: Tensor, rows: int) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.segment_broadcast(src, ptr, rows, "sum", None)
    else:
        return _run(_segment_broadcast, src, ptr, rows, "sum", None)
