"""The stages of one step, for solves that autograd watches and for those that it does not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from graphgen import _C, ops
from graphgen.compat.torchdiffeq._methods import Method
from graphgen.compat.torchdiffeq._problem import Problem
from graphgen.ops import _native
from graphgen.ops.stepping._affine import noise_of, partial_sums


class Stages(ABC):
    """A method on a problem, whose error is the largest of its pieces', those that count."""

    def __init__(
        self, method: Method, problem: Problem, sizes: Sequence[int], counted: int, atol: float, rtol: float
    ) -> None:
        self.method, self.problem, self.counted, self.atol, self.rtol = method, problem, counted, atol, rtol
        self.ptr = torch.tensor([0, *sizes], device=problem.device).cumsum(0)
        self.pieces = len(sizes)

    def times(self, start: float, dt: float, end: float) -> tuple[Tensor, ...]:
        """The stages' times, each a scalar; the end is the last moment before it, for what jumps there."""
        points = [start + c * dt for c in self.method.c]
        if self.method.c[-1] == 1:
            before = _before(end, dt, self.problem.dtype)
            points = [before if c == 1 else point for c, point in zip(self.method.c, points, strict=True)]
        return self.scalars(points)

    def scalars(self, numbers: list[float]) -> tuple[Tensor, ...]:
        return torch.tensor(numbers, dtype=self.problem.dtype, device=self.problem.device).unbind(0)

    @abstractmethod
    def step(self, y: Tensor, first: Tensor, times: Sequence[Tensor], dt: float) -> tuple[Tensor, list[Tensor], float]:
        """The result of a step, the slopes of its stages, and its error in units of what is tolerated."""

    def combine(self, y: Tensor, slopes: Sequence[Tensor], weights: Sequence[float], dt: float) -> Tensor:
        return ops.rk_combine(y, slopes, weights, dt, ptr=self.ptr)

    def norm(self, y: Tensor, slopes: Sequence[Tensor], weights: Sequence[float]) -> float:
        """Of a sum of slopes, in units of what is tolerated of y."""
        nothing = [0.0] * len(slopes)
        with torch.no_grad():
            _, norm = ops.rk_combine_with_error(
                y.detach().reshape(-1, 1),
                [slope.detach().reshape(-1, 1) for slope in slopes],
                nothing,
                weights,
                1.0,
                ptr=self.ptr,
                atol=self.atol,
                rtol=self.rtol,
            )
        return self._largest(norm)

    def _largest(self, norm: Tensor) -> float:
        values = norm.tolist()[: self.counted]
        return max(values) if all(value == value for value in values) else float("nan")


def _before(end: float, dt: float, dtype: torch.dtype) -> float:
    """The number before the end of a step, coming from its start."""
    if dtype is torch.float64:
        return math.nextafter(end, end - dt)
    return float(np.nextafter(np.float32(end), np.float32(-math.copysign(math.inf, dt))))


class Plain(Stages):
    """Without a gradient: prepared calls. Every stage has its own memory, since a field may keep what it is given."""

    def __init__(
        self, method: Method, problem: Problem, sizes: Sequence[int], counted: int, atol: float, rtol: float
    ) -> None:
        super().__init__(method, problem, sizes, counted, atol, rtol)
        y = problem.start
        self.h = torch.zeros(self.pieces, dtype=y.dtype, device=y.device)
        self.norms = torch.zeros_like(self.h)
        self._room = partial_sums(y, noise_of(self.ptr, None, 0, 0, 0, False))
        self._last: float | None = None
        self._calls = _C.RungeKuttaCalls(
            method.a,
            method.b,
            method.error or (0.0,) * len(method.b),
            self.ptr.data_ptr(),
            self.h.data_ptr(),
            self.norms.data_ptr(),
            _native.address(self._room),
            atol,
            rtol,
            self.pieces,
            *y.shape,
            _native.DTYPES[y.dtype],
            int(y.is_cuda),
        )

    def step(self, y: Tensor, first: Tensor, times: Sequence[Tensor], dt: float) -> tuple[Tensor, list[Tensor], float]:
        place = torch.get_num_threads(), 0
        if y.is_cuda:
            place = 0, torch.cuda.current_stream(y.device).cuda_stream
        if dt != self._last:
            self.h.fill_(dt)
            self._last = dt
        y, slope = y.contiguous(), first.contiguous()
        slopes, state = [slope], y
        for i in range(1, len(times)):
            state = torch.empty_like(y)
            _native.check(self._calls.stage(i, y.data_ptr(), slope.data_ptr(), state.data_ptr(), *place))
            slope = self.problem.slope(times[i], state).contiguous()
            slopes.append(slope)
        known = self.method.last_stage_is_result
        result = state if known else torch.empty_like(y)
        _native.check(self._calls.finish(y.data_ptr(), slope.data_ptr(), 0 if known else result.data_ptr(), *place))
        return result, slopes, self._largest(self.norms) if self.method.error else 0.0


class Recorded(Stages):
    """With a gradient: torch's own sums, which cost autograd less than an op of ours does."""

    def combine(self, y: Tensor, slopes: Sequence[Tensor], weights: Sequence[float], dt: float) -> Tensor:
        for slope, weight in zip(slopes, weights, strict=True):
            if weight:
                y = torch.add(y, slope, alpha=weight * dt)
        return y

    def step(self, y: Tensor, first: Tensor, times: Sequence[Tensor], dt: float) -> tuple[Tensor, list[Tensor], float]:
        method, slopes, state = self.method, [first], y
        for row, t in zip(method.a[1:], times[1:], strict=True):
            state = self.combine(y, slopes, row, dt)
            slopes.append(self.problem.slope(t, state))
        result = state if method.last_stage_is_result else self.combine(y, slopes, method.b, dt)
        if not method.error:
            return result, slopes, 0.0
        with torch.no_grad():
            plain = [slope.detach().reshape(-1, 1) for slope in slopes]
            _, norm = ops.rk_combine_with_error(
                y.detach().reshape(-1, 1),
                plain,
                method.b,
                method.error,
                dt,
                ptr=self.ptr,
                atol=self.atol,
                rtol=self.rtol,
            )
        return result, slopes, self._largest(norm)
