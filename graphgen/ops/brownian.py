"""Brownian motion as a function of time, a part of the noise contract.

W(t) of an element is a pure function of (seed, stream, graph id, element, cell, depth): the same path for any order of
questions, any batch and any number of threads, with nothing stored. csrc/noise/brownian.h has the law and the layout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.noise import Stream
from graphgen.ops.reference import brownian as reference


def brownian_increment(
    ptr: Tensor,
    features: int,
    start: float | Tensor,
    end: float | Tensor,
    seed: int,
    *,
    cell: float = 1.0,
    depth: int = 24,
    stream: int = Stream.BROWNIAN,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    integral: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Increments ``W(end) - W(start)`` of the Brownian motions of a batch, one motion an element.

    The path is cut into cells of length ``cell``, the first from time 0 on. Between multiples of ``cell`` an increment
    costs one normal a cell, whatever the time: make ``cell`` the step of a solver, and its steps cost the same at any
    time and over any span. The increment from ``k cell`` to ``(k + 1) cell`` is ``sqrt(cell)`` times
    :func:`graphgen.ops.normal` of the same seed and stream at step k. Elsewhere a point costs up to 2 ``depth`` + 2
    normals: a cell is halved up to ``depth`` times, and within its last parts the path is a parabola.

    Not differentiable, not even in the times.

    Args:
        ptr: [B + 1] node boundaries of the graphs; the result is on its device.
        features: F, motions per node.
        start, end: a number, or [B] with one of every graph; in any order and of any sign.
        seed, stream, graph_ids: which paths, see :func:`graphgen.ops.normal`.
        cell: length of a cell.
        depth: 0 <= depth < 48; what differs by less than ``cell`` / 2^depth in time is not told apart in law.
        dtype: float32, float64 or bfloat16; increments add up to its rounding.
        integral: also return U, the integral over t from ``start`` to ``end`` of ``W(t) - W(start)``. The space-time
            Levy area of the interval is ``H = U / (end - start) - W / 2``.

    Returns:
        W, [N, F]; or (W, U).

    Raises:
        ValueError: numbers out of range; a time beyond 2^31 cells (of [B] times: CPU).
        IndexError: a ptr that does not fit (CPU).

    Source: the law of (W, H) of halves given the whole: Foster, Lyons and Oberhauser, SIAM J. Numer. Anal. 58 (2020).
    """
    times = reference.check(ptr, features, start, end, seed, cell, depth, stream, graph_ids)
    ptr = ptr.long().contiguous()
    graph_ids = None if graph_ids is None else graph_ids.long().contiguous()
    return increment(ptr, graph_ids, int(ptr[-1]), features, *times, seed, cell, depth, stream, dtype, integral)


def increment(
    ptr: Tensor,
    graph_ids: Tensor | None,
    rows: int,
    features: int,
    start: float | Tensor,
    end: float | Tensor,
    seed: int,
    cell: float,
    depth: int,
    stream: int,
    dtype: torch.dtype,
    integral: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """The same of arguments that have been looked at; a CUDA call does not wait."""
    out = torch.empty((rows, features), dtype=dtype, device=ptr.device)
    if not _native.runs(out):
        return reference.brownian_increment(
            ptr,
            features,
            start,
            end,
            seed,
            cell=cell,
            depth=depth,
            stream=stream,
            graph_ids=graph_ids,
            dtype=dtype,
            integral=integral,
        )
    area = torch.empty_like(out) if integral else None
    arrays = [
        time.to(ptr.device, torch.float64).contiguous() if isinstance(time, Tensor) else None for time in (start, end)
    ]
    _native.call(
        _C.brownian,
        out,
        ptr.data_ptr(),
        _native.address(graph_ids),
        seed,
        stream,
        _native.address(arrays[0]),
        _native.address(arrays[1]),
        0.0 if isinstance(start, Tensor) else start,
        0.0 if isinstance(end, Tensor) else end,
        cell,
        depth,
        out.data_ptr(),
        0 if area is None else area.data_ptr(),
        ptr.shape[0] - 1,
        rows,
        features,
        _native.DTYPES[dtype],
    )
    return out if area is None else (out, area)
