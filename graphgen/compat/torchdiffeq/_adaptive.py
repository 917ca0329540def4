"""torchdiffeq's solves with steps by the error, the same ones."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graphgen.compat.torchdiffeq._stages import Stages


def integrate_adaptive(
    stages: Stages,
    t: Tensor,
    first: Tensor,
    min_step: Any = 0.0,
    max_step: Any = math.inf,
    first_step: Any = None,
    safety: Any = 0.9,
    ifactor: Any = 10.0,
    dfactor: Any = 0.2,
    max_num_steps: Any = 2**31 - 1,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """The states at t; time is float64 throughout."""
    wanted = t.tolist()
    sign = 1.0 if wanted[-1] > wanted[0] else -1.0
    min_step, max_step = float(min_step), float(max_step)
    problem, method = stages.problem, stages.method
    y, slope, now = problem.start, first, sign * wanted[0]
    size = _first_step(stages, sign, now, y, slope) if first_step is None else float(first_step)
    before, slopes, start, length = y, [slope] * len(method.b), now, 0.0
    states = [y]
    for _, output in pairwise(sign * point for point in wanted):
        steps = 0
        while output > now:
            assert steps < max_num_steps, f"max_num_steps exceeded ({steps}>={max_num_steps})"
            size = min(max(size if math.isfinite(size) else min_step, min_step), max_step)
            end = now + size
            assert end > now, f"underflow in dt {size}: the error is too large, or not a number, at t = {sign * now}"
            times = stages.times(sign * now, sign * size, sign * end)
            after, tried, error = stages.step(y, slope, times, sign * size)
            if error <= 1 or size <= min_step:
                assert math.isfinite(error), f"non-finite values in state `y` at t = {sign * end}"
                before, slopes, start, length = y, tried, now, size
                y, slope, now = after, tried[-1], end
            size = min(
                max(_next(size, error, float(safety), float(ifactor), float(dfactor), method.order), min_step), max_step
            )
            steps += 1
        x = (output - start) / length
        states.append(stages.combine(before, slopes, method.between(x), sign * length))
    return states


def _next(size: float, error: float, safety: float, ifactor: float, dfactor: float, order: int) -> float:
    if error == 0:
        return size * ifactor
    if not error < math.inf:
        return size * dfactor if error == math.inf else math.nan
    if error < 1:
        dfactor = 1.0
    return size * min(ifactor, max(safety / error ** (1 / order), dfactor))


def _first_step(stages: Stages, sign: float, now: float, y: Tensor, slope: Tensor) -> float:
    """By the size of the slope and of its change over a short step of Euler's method.

    Source: Hairer, Nørsett and Wanner, Solving ODEs I (1993), section II.4.
    """
    problem, order = stages.problem, stages.method.order - 1
    size, speed = stages.norm(y, [y], [1.0]), stages.norm(y, [slope], [1.0])
    short = 1e-6 if size < 1e-5 or speed < 1e-5 else 0.01 * size / speed
    moved = stages.combine(y, [slope], [1.0], sign * short)
    t = torch.tensor(sign * (now + short), dtype=problem.dtype, device=problem.device)
    change = stages.norm(y, [slope, problem.slope(t, moved)], [-1.0, 1.0]) / short
    if speed <= 1e-15 and change <= 1e-15:
        longest = max(1e-6, 1e-3 * short)
    else:
        longest = (0.01 / max(speed, change)) ** (1 / (order + 1))
    return min(100 * short, longest)
