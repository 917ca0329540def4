"""torchdiffeq.odeint_adjoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graphgen.compat.torchdiffeq._odeint import odeint
from graphgen.compat.torchdiffeq._original import original
from graphgen.compat.torchdiffeq._problem import PieceNorm, Problem, runs_here


def odeint_adjoint(
    func: Callable[[Tensor, Any], Any],
    y0: Tensor | tuple[Tensor, ...],
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: dict[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """:func:`odeint` whose gradient comes from the adjoint equation, solved backwards: memory for the outputs alone.

    Args:
        func: an ``nn.Module``, unless adjoint_params are given.
        adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options: of the backward solve; None for those of the
            forward one. ``adjoint_options={"norm": "seminorm"}`` leaves the parameters' gradients out of the error.
        adjoint_params: what else func depends on and wants a gradient.

    Raises:
        ValueError: func is no module and adjoint_params are missing; options for one method would serve another.
    """
    module = isinstance(func, nn.Module)
    grid = t.detach() if isinstance(t, Tensor) else t
    served = event_fn is None and runs_here(func, y0, grid, rtol, atol, method, options)
    backward_callback = any(name.startswith("callback_") and name.endswith("_adjoint") for name in dir(func))
    replica = module and getattr(func, "_is_replica", False)
    if not served or backward_callback or replica or (options or {}).get("norm") is not None:
        return original().odeint_adjoint(
            func,
            y0,
            t,
            rtol=rtol,
            atol=atol,
            method=method,
            options=options,
            event_fn=event_fn,
            adjoint_rtol=adjoint_rtol,
            adjoint_atol=adjoint_atol,
            adjoint_method=adjoint_method,
            adjoint_options=adjoint_options,
            adjoint_params=adjoint_params,
        )
    if adjoint_params is None and not module:
        raise ValueError("func must be an nn.Module, or its parameters be given as adjoint_params (() for none)")
    adjoint_method = method if adjoint_method is None else adjoint_method
    if adjoint_method != method and options is not None and adjoint_options is None:
        raise ValueError("options of one method do not serve another: with adjoint_method give adjoint_options too")
    backward_options = dict((options if adjoint_options is None else adjoint_options) or {})
    given = tuple(func.parameters() if adjoint_params is None else adjoint_params)  # type: ignore[attr-defined]
    parameters = tuple(parameter for parameter in given if parameter.requires_grad)
    if len(parameters) < len(given) and callable(backward_options.get("norm")):
        warnings.warn("adjoint_params without requires_grad are left out, of adjoint_options['norm'] too", stacklevel=2)
    problem = Problem(func, y0)
    backward_options["norm"] = _adjoint_norm(backward_options.get("norm"), problem, parameters)
    forward = {"rtol": rtol, "atol": atol, "method": method, "options": options}
    backward = {
        "rtol": rtol if adjoint_rtol is None else adjoint_rtol,
        "atol": atol if adjoint_atol is None else adjoint_atol,
        "method": adjoint_method,
    }
    flat = problem.start.squeeze(1) if not problem.single else y0
    result = _Adjoint.apply(problem, forward, backward, backward_options, flat, t, *parameters)
    if problem.single:
        return result
    ends = torch.tensor(problem.sizes).cumsum(0).tolist()
    return tuple(
        result[..., end - size : end].view((len(t), *shape))
        for end, size, shape in zip(ends, problem.sizes, problem.shapes, strict=True)
    )


def _adjoint_norm(norm: Any, problem: Problem, parameters: tuple[Tensor, ...]) -> Callable[[Any], Any]:
    """What measures the error of the backward solve, whose state is (t, y, adjoint of y, *adjoints of parameters)."""
    sizes = [1, *problem.sizes, *problem.sizes, *(parameter.numel() for parameter in parameters)]

    def pieces(state: Any) -> list[Tensor]:
        t, y, adjoint, *rest = state
        return [t.reshape(1), *y.reshape(-1).split(problem.sizes), *adjoint.reshape(-1).split(problem.sizes), *rest]

    if norm is None:
        return PieceNorm(sizes, len(sizes), pieces)
    if norm == "seminorm":
        return PieceNorm(sizes, 1 + 2 * len(problem.sizes), pieces)
    if problem.single:
        return norm

    def in_pieces(state: Any) -> Any:
        t, y, adjoint, *rest = state
        return norm((t, *problem.given(y), *problem.given(adjoint), *rest))

    return in_pieces


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, forward: Any, backward: Any, adjoint_options: Any, y0: Tensor, t: Tensor, *rest: Any
    ) -> Tensor:
        ctx.problem, ctx.solve, ctx.adjoint_options = problem, backward, adjoint_options
        with torch.no_grad():
            y = odeint(_flat_field(problem, y0.shape), y0, t, **_measured(forward, problem))
        ctx.save_for_backward(t, y, *rest)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        t, y, *parameters = ctx.saved_tensors
        wants_t = ctx.needs_input_grad[5]
        field = _flat_field(ctx.problem, y.shape[1:])

        def adjoint_field(now: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            _, at, adjoint, *_ = state
            with torch.enable_grad():
                now, at = now.detach().requires_grad_(wants_t), at.detach().requires_grad_()
                value = field(now, at)
                wanted = [*([now] if wants_t else []), at, *parameters]
                found: Any = [None] * len(wanted)
                if value.requires_grad:
                    found = torch.autograd.grad(value, wanted, -adjoint, allow_unused=True)
            pulled = [torch.zeros_like(x) if part is None else part for x, part in zip(wanted, found, strict=True)]
            if not wants_t:
                pulled.insert(0, torch.zeros_like(now))
            return pulled[0], value.detach(), *pulled[1:]

        by_t = torch.zeros_like(t)
        state = (y.new_zeros(()), y[-1], grad[-1], *(torch.zeros_like(parameter) for parameter in parameters))
        options = {**ctx.solve, "options": dict(ctx.adjoint_options)}
        with torch.no_grad():
            for k in range(len(t) - 1, 0, -1):
                if wants_t:
                    # What moving this output along the solution does.
                    along = (field(t[k], y[k]) * grad[k]).sum()
                    by_t[k] = along
                    state = (state[0] - along, *state[1:])
                solved = odeint(adjoint_field, state, t[k - 1 : k + 1].detach().flip(0), **options)
                by_time, _, adjoint, *rest = [part[1] for part in solved]
                state = (by_time, y[k - 1], adjoint + grad[k - 1], *rest)
        by_t[0] = state[0]
        return (None, None, None, None, state[2], by_t if wants_t else None, *state[3:])


def _flat_field(problem: Problem, shape: torch.Size) -> Callable[[Tensor, Tensor], Tensor]:
    """The field on the state as the adjoint keeps it: the caller's tensor, or his tuple in a row."""
    if problem.single:
        return problem.func
    return lambda t, y: problem.slope(t, y.view(-1, 1)).view(shape)


def _measured(forward: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """The forward solve of a row measures its error by the pieces that the tuple had."""
    if problem.single:
        return forward
    norm = PieceNorm(problem.sizes, len(problem.sizes), lambda y: list(y.reshape(-1).split(problem.sizes)))
    return {**forward, "options": {**(forward["options"] or {}), "norm": norm}}
