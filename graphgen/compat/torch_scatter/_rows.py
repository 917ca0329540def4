"""How a call in any number of dimensions becomes one on rows, and the kernels on rows.

Everything here also compiles as TorchScript, which sees the registered ops only; a trace is recorded through them too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphgen.compat.torch_scatter.utils import broadcast
from graphgen.ops._op import Op
from graphgen.ops.message_passing.scatter import _element_keys, _gather, _group_rows
from graphgen.ops.message_passing.segments import _extremes, _segment_broadcast, _segment_reduce


def product(sizes: list[int]) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out


def computable(src: Tensor) -> Tensor:
    """In a dtype there are kernels for: halves as float32, small integers as int32."""
    if src.dtype == torch.half:
        return src.float()
    if src.dtype == torch.uint8 or src.dtype == torch.int8 or src.dtype == torch.int16 or src.dtype == torch.bool:
        return src.int()
    return src


def check(src: Tensor, index: Tensor) -> None:
    if index.dtype != torch.long and index.dtype != torch.int:
        raise ValueError(f"an index must be int64 or int32, got {index.dtype}")
    if index.device != src.device:
        raise ValueError(f"src is on {src.device}, its index on {index.device}; move one")


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


def fold(src: Tensor, index: Tensor, dim: int, size: int) -> tuple[Tensor, Tensor, int]:
    """(rows [L * apart, W], the row of the result [L * apart] that each goes to, apart), L = src.size(dim).

    ``apart`` is how many places of the other dimensions have indices of their own: 1 if the index is one per row, all
    of them if it is one per element. The result has size * apart rows.
    """
    check(src, index)
    if _is_plain(src, dim) and index.dim() == 1 and index.size(0) == src.size(0):
        return src, index, 1
    moved = src.movedim(dim, 0)
    length = moved.size(0)
    if index.dim() == 1:
        if index.size(0) != length:
            index = index.expand(length)
        return moved.reshape(length, product(list(moved.shape[1:]))), index, 1
    index = broadcast(index, src, dim).movedim(dim, 0)
    kept = 1
    for d in range(1, index.dim()):
        if index.size(d) == 0 or (index.size(d) > 1 and index.stride(d) != 0):
            kept = d + 1
    for _ in range(kept, moved.dim()):
        index = index.select(-1, 0)
    apart = product(list(index.shape[1:]))
    if kept > 1:
        index = element_keys(index.reshape(length, apart), size)
    return moved.reshape(length * apart, product(list(moved.shape[kept:]))), index, apart


def unfold(rows: Tensor, src: Tensor, dim: int, size: int) -> Tensor:
    """The result's rows, or as many rows of places in them, in the shape of ``src`` with ``size`` along ``dim``."""
    if _is_plain(src, dim):
        return rows.view(size, src.size(1))
    moved = list(src.movedim(dim, 0).shape)
    moved[0] = size
    return rows.reshape(moved).movedim(0, dim).contiguous()


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


def group_rows(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A stable sort of places by index: (boundaries of each index's group, the places in that order)."""
    if torch.jit.is_scripting():
        return torch.ops.graphgen.group_rows(index, size)
    else:
        return _run(_group_rows, index, size)


def element_keys(index: Tensor, size: int) -> Tensor:
    """Indices [L, F] as those of single elements in [size, F]: ``index * F + f``."""
    if torch.jit.is_scripting():
        return torch.ops.graphgen.element_keys(index, size)
    else:
        return _run(_element_keys, index, size)


def segment_reduce(src: Tensor, ptr: Tensor, reduce: str, order: Tensor | None = None) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.segment_reduce(src, ptr, reduce, order)
    else:
        return _run(_segment_reduce, src, ptr, reduce, order)


def segment_max(src: Tensor, ptr: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.segment_max(src, ptr, order)
    else:
        return _run(_extremes["max"], src, ptr, order)


def segment_min(src: Tensor, ptr: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.segment_min(src, ptr, order)
    else:
        return _run(_extremes["min"], src, ptr, order)


def segment_broadcast(src: Tensor, ptr: Tensor, rows: int, order: Tensor | None = None) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.segment_broadcast(src, ptr, rows, "sum", order)
    else:
        return _run(_segment_broadcast, src, ptr, rows, "sum", order)


def gather(src: Tensor, index: Tensor) -> Tensor:
    if torch.jit.is_scripting():
        return torch.ops.graphgen.gather(src, index)
    else:
        return _run(_gather, src, index)
