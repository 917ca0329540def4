"""Gradients of a solve in constant memory: the state and its sensitivity go back along the noise that came.

With dx = f dt + g o dw in the sense of Stratonovich, a = dL/dx solves da = -a (df/dx dt + dg/dx o dw), and the
parameters gather -a (df/dp dt + dg/dp o dw), all backwards ('Scalable Gradients for Stochastic Differential Equations',
Li et al., AISTATS 2020, section 3). The increments of w are a function of their step's number: nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import push_forward
from graphgen.ops.stepping._affine import PerGraph
from graphgen.solvers.sde.equation import Diffusion, Equation, Field
from graphgen.solvers.sde.parts import Clock, Parts, State, like, parts_of, prepare


def solve_with_adjoint(
    forward: Callable[[Parts], Parts],
    f: Field,
    g: Diffusion,
    state: State,
    graph: GraphBatch | Tensor,
    t0: PerGraph,
    t1: PerGraph,
    steps: int,
    params: Iterable[Tensor],
    *,
    noise: str,
    sense: str,
    seed: int,
    graph_ids: Tensor | None,
    first_step: int,
    keep: State | None,
) -> State:
    """``forward(state)``, with the adjoint's gradient."""
    if sense == "ito" and noise == "general":
        raise ValueError("sdeint: the adjoint of general noise is there for sense='stratonovich'; or gradient='steps'")
    parts = parts_of(state)
    found: dict[int, Tensor] = {
        id(p): p for one in (f, g) if isinstance(one, torch.nn.Module) for p in one.parameters()
    }
    found |= {id(p): p for p in params}
    learned = [p for p in found.values() if p.requires_grad]
    moving = [None if keep is None else _rows(~one) for one in (parts if keep is None else parts_of(keep))]

    def increment(equation: Equation, k: int, t: Tensor, x: Parts) -> Parts:
        """f dt + g o dw of step k."""
        slope, size = equation.drift(t, x), equation.diffusion(t, x)
        if sense == "ito" and noise != "additive":
            slope = tuple(a - b for a, b in zip(slope, _drift_of_noise(equation, t, x), strict=True))
        result = equation.move(k, tuple(map(torch.zeros_like, x)), [(slope, equation.h)], size, watched=False)
        return tuple(part if m is None else part * m for part, m in zip(result, moving, strict=True))

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Parts:
            end = forward(tuple(part.detach() for part in tensors[: len(parts)]))
            ctx.save_for_backward(*end)
            return end

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
            x, a = tuple(ctx.saved_tensors), grads
            with torch.enable_grad():
                movers = prepare(x, graph, seed, graph_ids)
                clock = Clock(t0, t1, steps, movers[0])
                equation = Equation(f, g, noise, state, movers, clock)
            gathered = [torch.zeros_like(p) for p in learned]

            def pulled(at: int, node: float, x: Parts, a: Parts) -> tuple[Parts, Parts, Parts]:
                """The increment, and what it takes a to: of the state and of the parameters."""
                with torch.enable_grad():
                    x = tuple(part.detach().requires_grad_() for part in x)
                    step = increment(equation, first_step + at, clock(at, node), x)
                    back = torch.autograd.grad(step, (*x, *learned), a, allow_unused=True, materialize_grads=True)
                return tuple(part.detach() for part in step), back[: len(x)], back[len(x) :]

            for at in range(steps - 1, -1, -1):
                step, of_a, of_p = pulled(at, 1.0, x, a)
                before = tuple(part - move for part, move in zip(x, step, strict=True))
                guess = tuple(part + move for part, move in zip(a, of_a, strict=True))
                step_, of_a_, of_p_ = pulled(at, 0.0, before, guess)
                x = tuple(part - (p + q) * 0.5 for part, p, q in zip(x, step, step_, strict=True))
                a = tuple(part + (p + q) * 0.5 for part, p, q in zip(a, of_a, of_a_, strict=True))
                gathered = [sum_ + (p + q) * 0.5 for sum_, p, q in zip(gathered, of_p, of_p_, strict=True)]
            return (*a, *gathered)

    return like(Solve.apply(*parts, *learned), state)


def _rows(mask: Tensor) -> Tensor:
    return mask.unsqueeze(1) if mask.dim() == 1 else mask


def _drift_of_noise(equation: Equation, t: Tensor, x: Parts) -> Parts:
    """Half the derivative of g along g, by which Ito's drift exceeds that of Stratonovich."""

    def size(flat: Tensor) -> Tensor:
        at = tuple(part.view_as(one) for part, one in zip(flat.split([one.numel() for one in x]), x, strict=True))
        return torch.cat([part.flatten() for part in equation.arrays(equation.diffusion(t, at), at)])

    flat = torch.cat([part.flatten() for part in x])
    along = push_forward(size, flat, size(flat))[1] * 0.5
    return tuple(part.view_as(one) for part, one in zip(along.split([one.numel() for one in x]), x, strict=True))
