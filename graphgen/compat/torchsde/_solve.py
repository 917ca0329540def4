"""sdeint: what it accepts, and the loop."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming

from graphgen.compat.torchsde._brownian import ROUGH, BaseBrownian, BrownianInterval
from graphgen.compat.torchsde._methods import TABLE, Extra, FusedSteps, Method, Stretch
from graphgen.compat.torchsde._sde import Part, Problem, parts_of, with_log_ratio
from graphgen.compat.torchsde.settings import METHODS, NOISE_TYPES, SDE_TYPES
from graphgen.errors import GraphgenError

_CHECKED_EVERY = 64  # steps

_DEFAULT = {
    SDE_TYPES.ito: {NOISE_TYPES.general: METHODS.euler},
    SDE_TYPES.stratonovich: {noise: METHODS.midpoint for noise in NOISE_TYPES.all()},
}


def check_sde(sde: Any) -> None:
    """Refuse an object that does not say what it is."""
    for name, known in (("noise_type", NOISE_TYPES), ("sde_type", SDE_TYPES)):
        if not hasattr(sde, name):
            raise ValueError(f"the sde has no {name}: expected one of {known}")
        if getattr(sde, name) not in known:
            raise ValueError(f"{name}: expected one of {known}, got {getattr(sde, name)!r}")


def check_unused(function: str, unused: dict[str, Any]) -> None:
    if unused:
        warnings.warn(f"{function}: arguments that mean nothing to it: {sorted(unused)}", stacklevel=3)


def check_no_grad(**numbers: Any) -> None:
    for name, number in numbers.items():
        if isinstance(number, Tensor) and number.requires_grad:
            raise ValueError(f"{name}: no gradient by it can be had; detach it")


def times_of(ts: Any, y0: Tensor) -> Tensor:
    """Check the times."""
    if not isinstance(ts, Tensor):
        if not isinstance(ts, (tuple, list)) or not all(isinstance(t, (float, int)) for t in ts):
            raise ValueError("ts: expected a tensor [T] or a list or tuple of numbers")
        ts = torch.tensor(ts, dtype=y0.dtype, device=y0.device)
    if bool((ts[1:] <= ts[:-1]).any()):
        raise ValueError("ts: expected times that only rise")
    return ts


def noise_size(parts: dict[str, Part], noise_type: str, t: Tensor, y: Tensor, bm: BaseBrownian | None) -> int:
    """How many Brownian motions drive a state, from what the user's functions return."""
    batch, size = y.shape
    noises: list[int] = []
    if bm is not None:
        if len(bm.shape) != 2:
            raise ValueError(f"bm: expected a shape (batch, noises), got {tuple(bm.shape)}")
        if bm.shape[0] != batch:
            raise ValueError(f"batch sizes differ: {batch} of y0, {bm.shape[0]} of bm")
        noises.append(bm.shape[1])

    def check(name: str, value: Tensor, of_noise: bool = False) -> None:
        wanted = 3 if of_noise and noise_type != NOISE_TYPES.diagonal else 2
        if value.dim() != wanted:
            shape = "(batch, state)" if wanted == 2 else "(batch, state, noises)"
            raise ValueError(f"{name}: expected {shape} of {noise_type} noise, got {tuple(value.shape)}")
        if value.shape[0] != batch:
            raise ValueError(f"batch sizes differ: {batch} of y0, {value.shape[0]} of {name}")
        if value.shape[1] != size:
            raise ValueError(f"state sizes differ: {size} of y0, {value.shape[1]} of {name}")
        if of_noise:
            noises.append(value.shape[-1])

    def vector() -> Tensor:
        if not noises:
            raise ValueError("how many noises there are is unknown: give bm, or the SDE a g or f_and_g")
        return y.new_ones((batch, noises[0]))

    if "f" in parts:
        check("f", parts["f"](t, y))
    if "g" in parts:
        check("g", parts["g"](t, y), True)
    if "f_and_g" in parts:
        f, g = parts["f_and_g"](t, y)
        check("f_and_g", f)
        check("f_and_g", g, True)
    if "g_prod" in parts:
        check("g_prod", parts["g_prod"](t, y, vector()))
    if "f_and_g_prod" in parts:
        for value in parts["f_and_g_prod"](t, y, vector()):
            check("f_and_g_prod", value)
    if not {"f", "f_and_g", "f_and_g_prod"} & parts.keys():
        raise ValueError("the sde has no drift: give it f, f_and_g or f_and_g_prod")
    if not {"g", "f_and_g", "g_prod", "f_and_g_prod"} & parts.keys():
        raise ValueError("the sde has no diffusion: give it g, f_and_g, g_prod or f_and_g_prod")
    if any(count != noises[0] for count in noises):
        raise ValueError(f"noise sizes differ: {noises}")
    if noise_type == NOISE_TYPES.scalar and noises[0] != 1:
        raise ValueError(f"scalar noise is of one motion, this of {noises[0]}")
    return noises[0]


def chosen_method(name: str | None, sde: Any) -> tuple[str, Method]:
    name = _DEFAULT[sde.sde_type].get(sde.noise_type, METHODS.srk) if name is None else name
    if name not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {name!r}")
    if name not in TABLE:
        raise ValueError(f"method {name!r} is for adjoint_method of sdeint_adjoint")
    method = TABLE[name]
    if sde.sde_type not in method.sde_types:
        raise ValueError(f"method {name!r} is for {' and '.join(method.sde_types)} SDEs, this one is {sde.sde_type}")
    if sde.noise_type not in method.noise_types:
        raise ValueError(f"method {name!r} is for noise {', '.join(method.noise_types)}, this one is {sde.noise_type}")
    return name, method


def sdeint(
    sde,
    y0,
    ts,
    bm=None,
    method=None,
    dt=1e-3,
    adaptive=False,
    rtol=1e-5,
    atol=1e-4,
    dt_min=1e-5,
    options=None,
    names=None,
    logqp=False,
    extra=False,
    extra_solver_state=None,
    **unused_kwargs,
):
    """The path of an SDE at given times; arguments and results of torchsde's function of this name.

    Steps go from ``ts[0]`` by ``dt`` whatever ``ts`` is, and what lies between them is interpolated. Without ``bm`` the
    motion is one of step ``dt``, so that a step costs the same over any span of time.

    Args:
        sde: has ``noise_type``, ``sde_type``, a drift ``f(t, y)`` -> [B, d] and a diffusion ``g(t, y)`` -> [B, d] if
            diagonal, else [B, d, m]; or ``f_and_g``, ``g_prod(t, y, v)``, ``f_and_g_prod(t, y, v)``.
        y0: [B, d].
        ts: [T] rising, or numbers.

    Returns:
        [T, B, d]; with ``logqp`` also [T - 1, B], with ``extra`` also the solver's own state.

    Raises:
        ValueError: a contract that is not kept, or a method that does not fit the SDE.
        GraphgenError: the state is not finite; it says after which step, and at what time.
    """
    check_unused("sdeint", unused_kwargs)
    check_sde(sde)
    if not isinstance(y0, Tensor):
        raise ValueError(f"y0: expected a tensor, got {type(y0).__name__}")
    if y0.dim() != 2:
        raise ValueError(f"y0: expected (batch, state), got {tuple(y0.shape)}")
    parts = parts_of(sde, names)
    if logqp:
        parts = with_log_ratio(parts, sde.noise_type)
        y0 = torch.cat([y0, y0.new_zeros((y0.shape[0], 1))], 1)
    ts = times_of(ts, y0)
    size = noise_size(parts, sde.noise_type, ts[0], y0, bm)
    if adaptive and method == METHODS.euler and sde.noise_type != NOISE_TYPES.additive:
        warnings.warn("adaptive steps of Euler-Maruyama converge for additive noise only", stacklevel=2)
    name, chosen = chosen_method(method, sde)
    check_no_grad(ts=ts, dt=dt, rtol=rtol, atol=atol, dt_min=dt_min)
    if bm is None:
        bm = BrownianInterval(
            ts[0],
            ts[-1],
            size=(y0.shape[0], size),
            dtype=y0.dtype,
            device=y0.device,
            levy_area_approximation=chosen.area,
        )
    if bm.levy_area_approximation not in chosen.areas:
        raise ValueError(f"method {name!r} needs a bm whose levy_area_approximation is one of {chosen.areas}")
    problem = Problem(parts, sde.noise_type, sde.sde_type)
    options = dict(options or {})
    if extra_solver_state is None:
        extra_solver_state = ()
        if name == METHODS.reversible_heun:
            extra_solver_state = (*problem.f_and_g(ts[0], y0), y0)
    loop = _Loop(problem, chosen, bm, ts, options)
    if adaptive:
        ys, state = loop.adaptive(y0, tuple(extra_solver_state), float(dt), float(rtol), float(atol), float(dt_min))
    else:
        ys, state = loop.fixed(y0, tuple(extra_solver_state), float(dt))
    return parsed(ys, state, logqp, extra)


def parsed(ys: Tensor, state: Any, logqp: bool, extra: bool) -> Any:
    """What the caller wants of a solve."""
    found: list[Any] = [ys]
    if logqp:
        found = [ys[..., :-1], ys[1:, :, -1] - ys[:-1, :, -1]]
    if extra:
        found.append(state)
    return tuple(found) if len(found) > 1 else ys


def finite(y: Tensor) -> bool:
    """Whether all of it is; unknown, and so taken for granted, where a transform hides the numbers."""
    if transforming() or torch.compiler.is_compiling():
        return True
    y = y.detach()
    # A sum that is finite has finite terms, and is quicker to take.
    return math.isfinite(float(y.sum())) or bool(y.isfinite().all())


class _Loop:
    def __init__(self, problem: Problem, method: Method, bm: BaseBrownian, ts: Tensor, options: dict) -> None:
        self.problem, self.method, self.bm, self.options = problem, method, bm, options
        self.outputs = ts.tolist()
        self.like = ts
        # float32 times are no multiples of a step to more than their own precision.
        self.slack = 0.0 if ts.dtype == torch.float64 else ROUGH
        self.close = (
            4 * torch.finfo(ts.dtype if ts.is_floating_point() else torch.float64).eps * max(map(abs, self.outputs))
        )

    def step(self, start: float, end: float, y: Tensor, state: Extra) -> tuple[Tensor, Extra]:
        stretch = Stretch(self.bm, start, end, self.like, self.slack)
        return self.method.step(self.problem, stretch, y, state, self.options)

    def fixed(self, y: Tensor, state: Extra, dt: float) -> tuple[Tensor, Extra]:
        if isinstance(self.bm, BrownianInterval):
            self.bm.expect(dt)
        begin, last = self.outputs[0], self.outputs[-1]
        close = min(self.close, dt / 4)
        fused = FusedSteps.of(self.problem, self.method, self.bm, y, self.outputs[0], dt)
        times: tuple[Tensor, ...] = ()
        count, now, before, y_before = 0, begin, begin, y
        sound = (0, begin, y, state)  # the last that was looked at
        ys = [y]
        for wanted in self.outputs[1:]:
            while now < wanted - close:
                # A product and no sum, whose roundings would add up.
                after = begin + (count + 1) * dt
                after = last if after > last - close else after
                before, y_before = now, y
                if fused and after < last:
                    if count % _CHECKED_EVERY == 0 or not times:
                        times = self.times(begin, dt, count)
                    at = 2 * (count % _CHECKED_EVERY)
                    y = fused(times[at : at + 3], y, count)
                else:
                    y, state = self.step(now, after, y, state)
                count, now = count + 1, after
                if count % _CHECKED_EVERY == 0:
                    self.look(y, count, dt, sound)
                    sound = (count, now, y, state)
            if now <= wanted + close:
                ys.append(y)
            else:
                part = (wanted - before) / (now - before)
                ys.append((1 - part) * y_before + part * y)
        self.look(y, count, dt, sound)
        return torch.stack(ys), state

    def times(self, begin: float, dt: float, count: int) -> tuple[Tensor, ...]:
        """Starts and middles of the steps from the last look to the next, by one copy to the device."""
        first = 2 * (count - count % _CHECKED_EVERY)
        at = [begin + k * (0.5 * dt) for k in range(first, first + 2 * _CHECKED_EVERY + 1)]
        return torch.tensor(at, dtype=self.like.dtype, device=self.like.device).unbind()

    def look(self, y: Tensor, count: int, dt: float, sound: tuple[int, float, Tensor, Extra]) -> None:
        """Find the step that a number stopped being one at, by taking them again from where all was well."""
        if finite(y):
            return
        first, now, y, state = sound
        begin, last = self.outputs[0], self.outputs[-1]
        with torch.no_grad():
            y = y.detach()
            if not finite(y):
                raise GraphgenError(f"sdeint: y0 at time {begin:.6g} is not finite")
            for k in range(first, count):
                after = min(begin + (k + 1) * dt, last)
                y, state = self.step(now, after, y, state)
                if not finite(y):
                    raise GraphgenError(
                        f"sdeint: the state is not finite after step {k + 1}, from time {now:.6g} to {after:.6g}; "
                        "take smaller steps or look at drift and diffusion there"
                    )
                now = after
        raise GraphgenError(f"sdeint: the state is not finite after steps {first + 1} to {count}, time {now:.6g}")

    def adaptive(
        self, y: Tensor, state: Extra, dt: float, rtol: float, atol: float, dt_min: float
    ) -> tuple[Tensor, Extra]:
        """Each step is compared with its two halves."""
        begin, last = self.outputs[0], self.outputs[-1]
        now, before, y_before = begin, begin, y
        controller, count = _Controller(dt, dt_min), 0
        ys = [y]
        for wanted in self.outputs[1:]:
            while now < wanted:
                after = min(now + controller.dt, last)
                middle = 0.5 * (now + after)
                whole, _ = self.step(now, after, y, state)
                half, half_state = self.step(now, middle, y, state)
                new, new_state = self.step(middle, after, half, half_state)
                count += 1
                error = _error(whole, new, rtol, atol)
                if math.isnan(error):
                    raise GraphgenError(
                        f"sdeint: the state is not finite in step {count}, from time {now:.6g} to {after:.6g}; "
                        "raise the tolerance or look at drift and diffusion there"
                    )
                if controller.accepts(error):
                    before, y_before = now, y
                    now, y, state = after, new, new_state
            part = (wanted - before) / (now - before)
            ys.append((1 - part) * y_before + part * y)
        return torch.stack(ys), state


def _error(whole: Tensor, halves: Tensor, rtol: float, atol: float) -> float:
    with torch.no_grad():
        allowed = (rtol * torch.maximum(whole.abs(), halves.abs()) + atol).clamp(min=1e-7)
        return float(((whole - halves) / allowed).square().mean().sqrt().clamp(min=1e-7))


class _Controller:
    """Proportional and integral control of the step, with torchsde's constants."""

    def __init__(self, dt: float, dt_min: float) -> None:
        self.dt, self.dt_min = dt, dt_min
        self.before: float | None = None

    def accepts(self, error: float) -> bool:
        ratio = 0.9 / error
        good = error <= 1
        trend = ratio / (ratio if self.before is None else self.before)
        factor = ratio ** (1 / 4.5) * trend**0.13 if good else ratio ** (1 / 1.5)
        self.dt *= min(1.4, max(1.0 if good else 0.2, factor))
        if good or self.before is None:
            self.before = ratio
        if self.dt < self.dt_min:
            warnings.warn("sdeint: the step is as small as dt_min allows", stacklevel=4)
            self.dt, self.before = self.dt_min, None
        return good or self.dt <= self.dt_min
