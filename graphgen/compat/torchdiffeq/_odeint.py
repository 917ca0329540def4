"""torchdiffeq.odeint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphgen.compat.torchdiffeq._adaptive import integrate_adaptive
from graphgen.compat.torchdiffeq._fixed import integrate_fixed
from graphgen.compat.torchdiffeq._methods import ADAPTIVE, FIXED
from graphgen.compat.torchdiffeq._original import original
from graphgen.compat.torchdiffeq._problem import Problem, runs_here
from graphgen.compat.torchdiffeq._stages import Plain, Recorded, Stages


def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: Tensor | tuple[Tensor, ...],
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0; the states at the times t, [T, ...] for each tensor of y0.

    Args:
        func: ``(t, y) -> dy/dt`` with t a scalar tensor.
        y0: a tensor or a tuple of tensors.
        t: [T], rising or falling.
        rtol, atol: tolerances on the root mean square error; of a tuple the largest of its tensors' counts.
        method: "dopri5" if None; torchdiffeq's names.
        options: of the method; torchdiffeq's names.
        event_fn: ``(t, y) -> number``; the solve ends where it is zero.

    Raises:
        AssertionError: an adaptive method whose step has become too small, or that ran out of steps.
        GraphgenError: the call needs torchdiffeq's own code, and that is not installed.
    """
    if event_fn is not None or not runs_here(func, y0, t, rtol, atol, method, options):
        return original().odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn)
    method, options = method or "dopri5", dict(options or {})
    norm = options.pop("norm", None)
    problem = Problem(func, y0)
    known = ADAPTIVE[method] if method in ADAPTIVE else FIXED[method]
    first = problem.slope(t[0].to(problem.dtype), problem.start) if len(t) > 1 else None
    kind: type[Stages] = Plain
    if torch.is_grad_enabled() and first is not None and (first.requires_grad or problem.start.requires_grad):
        kind = Recorded
        (first,) = problem.keep_shape(first)
    sizes, counted = (problem.sizes, len(problem.sizes)) if norm is None else (norm.sizes, norm.counted)
    stages = kind(known, problem, sizes, counted, float(atol), float(rtol))
    if first is None:
        return problem.solution([problem.start])
    if kind is Recorded:
        return _integrate(method, stages, t, first, options)
    with torch.no_grad(), torch.cuda.device_of(t):
        return _integrate(method, stages, t, first, options)


def _integrate(method: str, stages: Stages, t: Tensor, first: Tensor, options: dict[str, Any]) -> Any:
    integrate = integrate_adaptive if method in ADAPTIVE else integrate_fixed
    return stages.problem.solution(integrate(stages, t, first, **options))
