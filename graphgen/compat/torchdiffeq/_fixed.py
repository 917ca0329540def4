"""torchdiffeq's solves on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graphgen.compat.torchdiffeq._stages import Stages

_TABLE = 256  # steps whose times are made at once


def integrate_fixed(
    stages: Stages,
    t: Tensor,
    first: Tensor,
    step_size: Any = None,
    grid_constructor: Callable[..., Tensor] | None = None,
) -> list[Tensor]:
    """The states at t, on straight lines between the states of the grid."""
    problem = stages.problem
    wanted = t.tolist()
    if grid_constructor is not None:
        grid = grid_constructor(problem.func, problem.given(problem.start), t).tolist()
    else:
        grid = wanted if step_size is None else _equal(wanted, float(step_size), t.dtype)
    assert grid[0] == wanted[0] and grid[-1] == wanted[-1], "the grid must begin and end as t does"
    sign = 1 if wanted[-1] > wanted[0] else -1
    y, states, slope = problem.start, [problem.start], first
    nodes = stages.method.c
    for number, (start, end) in enumerate(pairwise(grid)):
        if number % _TABLE == 0:
            table = stages.scalars(
                [a + c * (b - a) for a, b in pairwise(grid[number : number + _TABLE + 1]) for c in nodes]
            )
        at = number % _TABLE * len(nodes)
        times = table[at : at + len(nodes)]
        if number:
            slope = problem.slope(times[0], y)
        after, _, _ = stages.step(y, slope, times, end - start)
        while len(states) < len(wanted) and sign * end >= sign * wanted[len(states)]:
            share = (wanted[len(states)] - start) / (end - start)
            states.append(after if share == 1 else y + share * (after - y))
        y = after
    return states


def _equal(wanted: list[float], size: float, dtype: torch.dtype) -> list[float]:
    """A grid of one step size, in the precision of the times, whose last step is what remains."""
    start, end = wanted[0], wanted[-1]
    count = math.ceil(abs(end - start) / size + 1)
    grid = torch.arange(count, dtype=dtype) * (size if end > start else -size) + start
    return [*grid.tolist()[:-1], end]
