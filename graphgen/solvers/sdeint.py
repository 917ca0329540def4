"""Stochastic differential equations on a batch of graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from graphgen.graph import GraphBatch
from graphgen.ops.stepping._affine import PerGraph
from graphgen.solvers.sde.adjoint import solve_with_adjoint
from graphgen.solvers.sde.equation import Diffusion, Equation, Field
from graphgen.solvers.sde.parts import Clock, OnNonfinite, Parts, State, Watch, like, parts_of, prepare, two_buffers
from graphgen.solvers.sde.schemes import scheme

Kind = Literal["diagonal", "additive", "scalar", "general"]
Sense = Literal["ito", "stratonovich"]


def sdeint(
    f: Field,
    g: Diffusion,
    state: State,
    graph: GraphBatch | Tensor,
    t0: PerGraph,
    t1: PerGraph,
    steps: int,
    method: Literal["euler", "milstein", "heun", "srk"] = "euler",
    *,
    noise: Kind = "diagonal",
    sense: Sense = "ito",
    seed: int = 0,
    graph_ids: Tensor | None = None,
    first_step: int = 0,
    keep: State | None = None,
    on_nonfinite: OnNonfinite = "raise",
    on_step: Callable[[float], None] | None = None,
    gradient: Literal["steps", "adjoint"] = "steps",
    checkpoint_every: int | None = None,
    params: Iterable[Tensor] = (),
) -> State:
    """Carry dx = f(t, x) dt + g(t, x) dw from t0 to t1 in equal steps; backwards in time if t1 < t0.

    A graph's path is a function of (seed, its id, the steps' numbers): the same bits in any batch. Time and memory of a
    step do not depend on how many there are or how long they are.

    Args:
        f: ``(t [B], state) -> drift``, one tensor per part of the state. The state handed to f and g is the solver's
            own, which it writes again later; clone what is to be kept.
        g: the same for the diffusion, or what does not depend on the state: a number, [B], or the g of a
            :class:`VP`, :class:`SubVP` or :class:`VE`. f and g may not look from one graph to another.
        state: [N, F] node features; or (these, [sum of n^2, G] symmetric features of ordered pairs of nodes).
        graph: whose nodes the rows are, or the bounds [B + 1] of the graphs' rows.
        t0, t1: numbers, or [B] with every graph's own. Not differentiated.
        method: strong order on the noise of this kind, and weak order
            "euler"     1/2 (additive: 1) and 1   Ito
            "milstein"  1 and 1                   either; not general noise
            "heun"      1 and 1                   Stratonovich (general: noise that commutes; else 1/2)
            "srk"       3/2 and 3/2 (additive: 2) Ito; not general noise; 3 drifts and 4 diffusions (additive: 2 and 2)
        noise: "diagonal": g is a number, [B] or [N, F], a Brownian motion for each number of the state; beyond "euler"
            and "heun", every number's g must depend on that number alone. "additive": the same, where g does not depend
            on the state. "scalar": g is [N, F], one motion for a graph. "general": g is [N, F, M], M motions for a
            graph, which all its numbers share.
        sense: of the integral, "ito" or "stratonovich".
        seed, graph_ids: of the noise, see :func:`graphgen.ops.normal`.
        first_step: the number of the first step, for going on along a path.
        keep: bool [N] or [N, F] of every part; where True the state stays.
        on_nonfinite: "raise", or "mask": graphs that stop being finite come back as NaN, all their rows.
        on_step: called with the share of the way that is done, for a progress bar.
        gradient: "steps": through the solve, in state and whatever f and g close over; segments of steps are computed
            again backwards, so that memory grows with their length and their number. "adjoint": by the stochastic
            adjoint, which carries the state back along the same noise by Heun's method: memory does not grow, and the
            gradient is as exact as steps are small. Ito's sense of state-dependent noise needs second derivatives of g.
        checkpoint_every: steps of a segment; None for the square root of their number, 0 for nothing computed twice.
        params: what the adjoint differentiates beside the state and the parameters of f and g that are modules.

    Returns:
        The state at t1.

    Raises:
        GraphgenError: a value that is not finite; names step, time and graphs (their ids).
        ValueError: a method that does not solve this equation (says which do); arguments that do not fit.

    Sources: Kloeden and Platen, Numerical Solution of SDEs (1992); Roessler, SIAM J. Numer. Anal. 48 (2010);
    Li et al., AISTATS 2020 (the adjoint).
    """
    chosen = scheme(method, sense, noise)
    if steps < 0 or not 0 <= first_step <= 2**32 - steps:
        raise ValueError(f"sdeint: expected 0 <= first_step <= first_step + steps <= 2^32, got {first_step}, {steps}")
    if gradient not in ("steps", "adjoint"):
        raise ValueError(f"sdeint: gradient must be 'steps' or 'adjoint', got {gradient!r}")
    if gradient == "adjoint" and torch.is_grad_enabled():
        again = dict(noise=noise, sense=sense, seed=seed, graph_ids=graph_ids, first_step=first_step, keep=keep)
        more = dict(on_nonfinite=on_nonfinite, on_step=on_step)

        def forward(x: Parts) -> Parts:
            return parts_of(sdeint(f, g, like(x, state), graph, t0, t1, steps, method, **again, **more))  # type: ignore

        return solve_with_adjoint(forward, f, g, state, graph, t0, t1, steps, params, **again)  # type: ignore

    x = parts_of(state)
    movers = prepare(x, graph, seed, graph_ids, keep)
    clock = Clock(t0, t1, steps, movers[0])
    equation = Equation(f, g, noise, state, movers, clock)
    watch = Watch("sdeint", movers, graph_ids, on_nonfinite, lambda step, b: f"t = {clock(step - first_step)[b]:.4g}")

    def walk(x: Parts, first: int, last: int, buffers: tuple[Parts, Parts] | None) -> Parts:
        for at in range(first, last):
            x = chosen.run(equation, first_step + at, at, x, None if buffers is None else buffers[at % 2])
            watch.after(at + 1)
            if on_step is not None and buffers is not None:
                on_step((at + 1) / steps)
        return x

    traced = transforming() or forward_ad._current_level >= 0
    if torch.is_grad_enabled() or traced:
        segment = round(math.sqrt(steps)) if checkpoint_every is None else checkpoint_every
        for first in range(0, steps, segment or max(steps, 1)):
            last = min(first + (segment or steps), steps)
            if segment and not traced:
                x = checkpoint(lambda *x, first=first, last=last: walk(x, first, last, None), *x, use_reentrant=False)
            else:
                x = walk(x, first, last, None)
            if on_step is not None:
                on_step(last / steps)
    else:
        x = walk(x, 0, steps, two_buffers(x))
    return like(watch.finish(x), state)
