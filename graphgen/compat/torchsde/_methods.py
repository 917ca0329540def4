"""One step of each of torchsde's methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphgen import _C
from graphgen.compat.torchsde._brownian import BaseBrownian, BrownianInterval
from graphgen.compat.torchsde._sde import Problem
from graphgen.compat.torchsde.settings import (
    LEVY_AREA_APPROXIMATIONS,
    METHOD_OPTIONS,
    METHODS,
    NOISE_TYPES,
    SDE_TYPES,
)
from graphgen.ops import _native
from graphgen.ops._op import eager
from graphgen.ops.noise import Stream
from graphgen.ops.stepping._affine import Noise, take_step

Extra = tuple[Tensor, ...]


class Stretch:
    """The time of a step, and the noise in it."""

    def __init__(self, bm: BaseBrownian, start: float, end: float, like: Tensor, slack: float) -> None:
        self.bm, self.start, self.end, self.slack = bm, start, end, slack
        self.dtype, self.device = like.dtype, like.device
        self.dt = end - start

    def time(self, part: float) -> Tensor:
        """A time in it, from 0 to 1, as f and g are given it."""
        at = self.end if part == 1 else self.start + part * self.dt
        return torch.tensor(at, dtype=self.dtype, device=self.device)

    def noise(self, **wanted: bool) -> Any:
        """What a Brownian motion returns."""
        if isinstance(self.bm, BrownianInterval):
            return self.bm.between(self.start, self.end, self.slack, **wanted)
        return self.bm(
            *(torch.tensor(at, dtype=self.dtype, device=self.device) for at in (self.start, self.end)), **wanted
        )


def _euler(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    f, g_prod = p.f_and_g_prod(s.time(0), y, s.noise())
    return y + f * s.dt + g_prod, ()


Times = tuple[Tensor, ...]  # the start of a step, its middle and its end


class FusedSteps:
    """Steps of diagonal noise over the cells of a path: one pass over the state each, or two, which make the noise they
    add."""

    def __init__(
        self, problem: Problem, step: Callable[..., Tensor], bm: BrownianInterval, first: int, dt: float
    ) -> None:
        self.f_and_g, self.step = problem.f_and_g, step
        self.bm, self.first, self.dt, self.width = bm, first, dt, math.sqrt(dt)
        self.noise = Noise(bm.ptr, None, None, bm.seed - (bm.seed >> 63 << 64), Stream.BROWNIAN, 0, False)

    @staticmethod
    def of(problem: Problem, method: Method, bm: BaseBrownian, y: Tensor, start: float, dt: float) -> FusedSteps | None:
        """None where there are no such steps."""
        fits = problem.is_plain and problem.noise_type == NOISE_TYPES.diagonal
        if (
            method.fused is None
            or not fits
            or not isinstance(bm, BrownianInterval)
            or not _native.runs(y)
            or tuple(y.shape) != bm.shape
        ):
            return None
        first = bm.first_of_steps(start, dt)
        return None if first is None else FusedSteps(problem, method.fused, bm, first, dt)

    def __call__(self, times: Times, y: Tensor, k: int) -> Tensor:
        """Step k of the solve."""
        return self.step(self, times, y, self.first + k)

    def add(self, k: int, terms: list[Tensor], factors: list[float], share: float, g: Tensor) -> Tensor:
        """The terms, the first of them the state, times their factors, and a share of g times the increment k."""
        y, bm = terms[0], self.bm
        if any(x.dtype is not y.dtype or x.shape != y.shape for x in (*terms, g)):
            terms, g = [x.to(y.dtype).expand(y.shape) for x in terms], g.to(y.dtype).expand(y.shape)
        if not (eager(*terms, g) and g.is_contiguous() and all(x.is_contiguous() for x in terms)):
            rows = (bm.rows, bm.features)
            terms = [x.reshape(rows) for x in terms]
            width = share * self.width
            return take_step(terms, factors, self.noise._replace(step=k), width, g.reshape(rows)).view(y.shape)
        out = torch.empty_like(y)
        _native.call(
            _C.affine_noise_step,
            y,
            *(bm.ptr.data_ptr(), 0, 0, bm.seed, Stream.BROWNIAN, k, False),
            *([x.data_ptr() for x in terms], [0] * len(terms), factors, True),
            *(g.data_ptr(), 0, share * self.width, 0, 1, out.data_ptr(), 0),
            *(bm.ptr.shape[0] - 1, bm.rows, bm.features, _native.DTYPES[y.dtype]),
        )
        return out


def _fused_euler(fused: FusedSteps, times: Times, y: Tensor, k: int) -> Tensor:
    f, g = fused.f_and_g(times[0], y)
    return fused.add(k, [y, f], [1.0, fused.dt], 1.0, g)


def _fused_heun(fused: FusedSteps, times: Times, y: Tensor, k: int) -> Tensor:
    f, g = fused.f_and_g(times[0], y)
    f_end, g_end = fused.f_and_g(times[2], fused.add(k, [y, f], [1.0, fused.dt], 1.0, g))
    return fused.add(k, [y, f, f_end], [1.0, fused.dt / 2, fused.dt / 2], 0.5, g + g_end)


def _fused_midpoint(fused: FusedSteps, times: Times, y: Tensor, k: int) -> Tensor:
    f, g = fused.f_and_g(times[0], y)
    f, g = fused.f_and_g(times[1], fused.add(k, [y, f], [1.0, fused.dt / 2], 0.5, g))
    return fused.add(k, [y, f], [1.0, fused.dt], 1.0, g)


def _milstein(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    if p.noise_type == NOISE_TYPES.additive:  # whose diffusion has no slope
        return _euler(p, s, y, extra, options)
    t, w = s.time(0), s.noise()
    ito = p.sde_type == SDE_TYPES.ito
    v = w.square() - s.dt if ito else w.square()
    if options.get(METHOD_OPTIONS.grad_free):
        f, g = p.f_and_g(t, y)
        root = math.sqrt(s.dt)
        near = y + p.squeezed(g) * root + (f * s.dt if ito else 0.0)
        slope: Tensor | float = p.prod(p.g(t, near) - g, v) / (2 * root)
    else:
        f = p.f(t, y)
        g, slope = p.along_itself(t, y, 0.5 * v)
    return y + f * s.dt + p.prod(g, w) + slope, ()


def _midpoint(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    w = s.noise()
    f, g_prod = p.f_and_g_prod(s.time(0), y, w)
    middle = y + (0.5 * s.dt) * f + 0.5 * g_prod
    f, g_prod = p.f_and_g_prod(s.time(0.5), middle, w)
    return y + s.dt * f + g_prod, ()


def _log_ode(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    w, area = s.noise(return_A=True)
    f, g_prod = p.f_and_g_prod(s.time(0), y, w)
    middle = y + (0.5 * s.dt) * f + 0.5 * g_prod
    t = s.time(0.5)
    f, g_prod = p.f_and_g_prod(t, middle, w)
    return y + s.dt * f + g_prod + p.along_area(t, middle, area), ()


def _heun(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    w = s.noise()
    f, g_prod = p.f_and_g_prod(s.time(0), y, w)
    f_end, g_prod_end = p.f_and_g_prod(s.time(1), y + s.dt * f + g_prod, w)
    return y + 0.5 * (s.dt * (f + f_end) + g_prod + g_prod_end), ()


def _euler_heun(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    w = s.noise()
    f, g_prod = p.f_and_g_prod(s.time(0), y, w)
    return y + s.dt * f + 0.5 * (g_prod + p.g_prod(s.time(1), y + g_prod, w)), ()


def _reversible_heun(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    f, g, z = extra
    w = s.noise()
    z = 2 * y - z + f * s.dt + p.prod(g, w)
    f_end, g_end = p.f_and_g(s.time(1), z)
    return y + (f + f_end) * (0.5 * s.dt) + p.prod(g + g_end, 0.5 * w), (f_end, g_end, z)


def _srk(p: Problem, s: Stretch, y: Tensor, extra: Extra, options: dict) -> tuple[Tensor, Extra]:
    """Strong order 1.5: SRA1 and SRI2 of Roessler, SIAM J. Numer. Anal. 48 (2010), tables 6.2 and 6.3."""
    dt, root = s.dt, math.sqrt(s.dt)
    w, u = s.noise(return_U=True)
    u = u / dt
    if p.noise_type == NOISE_TYPES.additive:
        f = p.f(s.time(0), y)
        f_late = p.f(s.time(0.75), y + (0.75 * dt) * f + p.g_prod(s.time(1), y, 1.5 * u))
        return y + dt / 3 * (f + 2 * f_late) + p.g_prod(s.time(1), y, w - u) + p.g_prod(s.time(0), y, u), ()
    quarter = s.time(0.25)
    once = (w.square() - dt) * (0.5 / root)
    twice = (w**3 - 3 * dt * w) / (6 * dt)
    f0, g0 = p.f_and_g(s.time(0), y)
    h0 = p.squeezed(g0)
    f1 = p.f(s.time(1), y + dt * f0)
    g1 = p.g(quarter, y + (0.25 * dt) * f0 - (0.5 * root) * h0)
    h1 = p.squeezed(g1)
    f2 = p.f(s.time(0.5), y + (0.25 * dt) * (f0 + f1) + (h0 + 0.5 * h1) * u)
    g2 = p.g(s.time(1), y + dt * f0 + root * h0)
    h2 = p.squeezed(g2)
    g3 = p.g(quarter, y + (0.25 * dt) * f2 + root * (2 * h0 - h1 + 0.5 * h2))
    y = y + dt / 6 * (f0 + f1 + 4 * f2)
    y = y + p.prod(g0, once - w + 2 * (u - twice))
    y = y + p.prod(g1, (4 * (w - once - u) + 5 * twice) / 3)
    y = y + p.prod(g2, (2 * (w - u - twice) + once) / 3)
    return y + p.prod(g3, twice), ()


@dataclass(frozen=True)
class Method:
    """A step, and what it is for."""

    step: Callable[[Problem, Stretch, Tensor, Extra, dict], tuple[Tensor, Extra]]
    sde_types: tuple[str, ...]
    noise_types: tuple[str, ...]
    areas: tuple[str, ...]
    area: str = LEVY_AREA_APPROXIMATIONS.none  # of a motion made for it
    fused: Callable[..., Tensor] | None = None  # see FusedSteps


_ITO, _STRATONOVICH = (SDE_TYPES.ito,), (SDE_TYPES.stratonovich,)
_ALL, _ANY = tuple(NOISE_TYPES.all()), tuple(LEVY_AREA_APPROXIMATIONS.all())
_COMMUTING = (NOISE_TYPES.additive, NOISE_TYPES.diagonal, NOISE_TYPES.scalar)
_DAVIE, _FOSTER = LEVY_AREA_APPROXIMATIONS.davie, LEVY_AREA_APPROXIMATIONS.foster
_SPACE_TIME = LEVY_AREA_APPROXIMATIONS.space_time

TABLE = {
    METHODS.euler: Method(_euler, _ITO, _ALL, _ANY, fused=_fused_euler),
    METHODS.milstein: Method(_milstein, _ITO + _STRATONOVICH, _COMMUTING, _ANY),
    METHODS.srk: Method(_srk, _ITO, _COMMUTING, (_SPACE_TIME, _DAVIE, _FOSTER), _SPACE_TIME),
    METHODS.midpoint: Method(_midpoint, _STRATONOVICH, _ALL, _ANY, fused=_fused_midpoint),
    METHODS.heun: Method(_heun, _STRATONOVICH, _ALL, _ANY, fused=_fused_heun),
    METHODS.euler_heun: Method(_euler_heun, _STRATONOVICH, _ALL, _ANY),
    METHODS.reversible_heun: Method(_reversible_heun, _STRATONOVICH, _ALL, _ANY),
    METHODS.log_ode_midpoint: Method(_log_ode, _STRATONOVICH, _ALL, (_DAVIE, _FOSTER), _FOSTER),
}
