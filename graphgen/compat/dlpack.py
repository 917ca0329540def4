"""The ops of :mod:`graphgen.ops` for arrays of any library that speaks DLPack: NumPy, CuPy, JAX and others.

Every op that takes and gives tensors is here under its own name, with the arguments it has there. Arrays go in without
a copy, read-only ones too, and results come out as the type of the first array, without a copy where that library can.
What the ops ask of dtypes and devices holds here; derivatives do not cross over, and arrays must have values (in JAX:
call outside ``jax.jit``).

    graph = dlpack.from_edge_index(edge_index, num_nodes)
    h = dlpack.neighbor_reduce(x, graph)

:func:`for_arrays` makes the same of a function of one's own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.graph import GraphBatch


def for_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with every DLPack array among its arguments taken as a tensor, and tensors given back as arrays.

    Without an array of another library among the arguments, tensors are given back.

    Raises:
        BufferError: an array that its library cannot hand over, such as one of foreign byte order.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        first = next((value for value in (*args, *kwargs.values()) if _is_array(value)), None)
        result = function(*map(_tensor, args), **{name: _tensor(value) for name, value in kwargs.items()})
        return result if first is None else _like(first, result)

    return call


def _is_array(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not isinstance(value, Tensor)


def _tensor(value: Any) -> Any:
    if not _is_array(value):
        return value
    # Torch aborts on strides below 0, which DLPack allows.
    if any(stride < 0 for stride in getattr(value, "strides", None) or ()):
        value = value.copy()
    try:
        return torch.from_dlpack(value)
    except BufferError:
        return torch.from_dlpack(value.copy())  # NumPy before 2.1 has no way to hand over a read-only array


def _like(array: Any, result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_like(array, part) for part in result)
    if not isinstance(result, Tensor):
        return result
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__().from_dlpack(result)
    return sys.modules[type(array).__module__.partition(".")[0]].from_dlpack(result)


from_edge_index = for_arrays(GraphBatch.from_edge_index)


@for_arrays
def from_csr(rowptr: Tensor, col: Tensor) -> GraphBatch:
    """One graph from compressed rows: edges ``col[rowptr[i]:rowptr[i + 1]] -> i``, which keep their order.

    Args:
        rowptr: [N + 1] int32 or int64, from 0 to E without falling.
        col: [E], same dtype, the source of each edge.

    Raises:
        IndexError: a source outside [0, N).
        ValueError: a rowptr that is none.
    """
    if rowptr.dim() != 1 or rowptr.numel() == 0 or col.dim() != 1:
        raise ValueError(f"from_csr: expected rowptr [N + 1] and col [E], got {list(rowptr.shape)}, {list(col.shape)}")
    degree = rowptr.diff()
    if int(rowptr[0]) != 0 or int(rowptr[-1]) != col.numel() or bool((degree < 0).any()):
        raise ValueError(f"from_csr: rowptr must start at 0, never fall and end at {col.numel()}, the length of col")
    target = torch.arange(degree.numel(), dtype=col.dtype, device=col.device).repeat_interleave(degree)
    return GraphBatch.from_edge_index(torch.stack([col, target]), degree.numel())


# Of functions of functions, and of what plain torch gives, no array can be made.
_OPS = [name for name in ops.__all__ if name not in ("divergence", "reference")]
globals().update({name: for_arrays(getattr(ops, name)) for name in _OPS})

__all__ = ["for_arrays", "from_csr", "from_edge_index", *_OPS]
