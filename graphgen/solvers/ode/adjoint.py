"""Gradients of a solve by solving its adjoint backwards: memory for the end state alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphgen.ops.stepping.tableaus import Row
from graphgen.solvers.ode.layout import Derivative, Flat, Layout, State
from graphgen.solvers.ode.march import Step

# (f, state, from, to, what sees the steps) -> the state there; nothing is differentiated.
Solve = Callable[[Derivative, tuple[Tensor, ...], float, float, Callable[[Layout, Step], None] | None], Flat]


def solve_with_adjoint(
    f: Derivative,
    state: State,
    t0: float,
    t1: float,
    parameters: Sequence[Tensor],
    weights: Row,
    solve: Solve,
) -> tuple[Tensor, ...]:
    """The state at t1, whose gradient by the state and the parameters comes from the adjoint equation.

    With L a function of the end, a = dL/dy obeys da/dt = -a^T df/dy back from t1, and dL/dtheta is the integral of
    a^T df/dtheta, by the method's `weights`. The state is solved backwards along with a.

    Source: Chen et al., Neural ordinary differential equations (2018), section 2.
    """
    parts = (state,) if isinstance(state, Tensor) else tuple(state)
    single = isinstance(state, Tensor)

    def inner(t: Tensor, y: State) -> State:
        slope = f(t, y[0] if single else y)
        return (slope,) if isinstance(slope, Tensor) else slope

    wanted = tuple(parameter for parameter in parameters if parameter.requires_grad)
    return _Adjoint.apply((inner, t0, t1, solve, len(parts), weights, wanted), *parts, *wanted)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        f, t0, t1, solve, count, *_ = problem
        start = tensors[:count]
        end = solve(f, start, t0, t1, None)
        results = tuple(flat.view(part.shape) for flat, part in zip(end, start, strict=True))
        ctx.problem = problem
        ctx.save_for_backward(*results)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        f, t0, t1, solve, count, weights, parameters = ctx.problem
        end = ctx.saved_tensors
        sums = [torch.zeros_like(parameter) for parameter in parameters]

        def backwards(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            y, slope = _recorded(f, t, state[:count])
            pulled = _pulled(slope, y, state[count:])
            return (*(part.detach() for part in slope), *(-part for part in pulled))

        def add(layout: Layout, step: Step) -> None:
            if parameters:
                _add_parameters(f, layout, step, weights, parameters, sums)

        adjoint = tuple(grad.contiguous() for grad in grads)
        both = solve(backwards, (*end, *adjoint), t1, t0, add)
        given = [flat.view(part.shape) for flat, part in zip(both[count:], end, strict=True)]
        return (None, *given, *sums)


def _recorded(f: Any, t: Tensor, y: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    with torch.enable_grad():
        watched = tuple(part.detach().requires_grad_() for part in y)
        return watched, tuple(f(t, watched))


def _pulled(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """The cotangents pulled back; zeros where an input has no part in the outputs."""
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = torch.autograd.grad([a for a, _ in pairs], inputs, [b for _, b in pairs], allow_unused=True)
    return [torch.zeros_like(x) if part is None else part for x, part in zip(inputs, found, strict=True)]


def _add_parameters(
    f: Any, layout: Layout, step: Step, weights: Row, parameters: Sequence[Tensor], sums: Sequence[Tensor]
) -> None:
    """Add this step's part of the integral of a^T df/dtheta, by the weights of the method.

    Graphs that did not move stay where they were: their stages may be anything, and must not come near the sum.
    """
    moved, h = step.taken.moved, step.taken.h
    count = len(layout.shapes) // 2
    for weight, t, point in zip(weights, step.taken.times, [step.y, *step.points], strict=False):
        if weight == 0:
            continue
        flat = layout.choose(moved, point.flat, step.y.flat)
        state = layout.parts(layout.given(flat))
        # h is negative: the solve runs backwards.
        share = -weight * h
        cotangents = [
            (part.reshape(flat[count + k].shape) * layout.rows(share, count + k)).view(part.shape)
            for k, part in enumerate(state[count:])
        ]
        with torch.enable_grad():
            slope = tuple(f(t, tuple(part.detach() for part in state[:count])))
        for total, part in zip(sums, _pulled(slope, parameters, cotangents), strict=True):
            total += part
