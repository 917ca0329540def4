"""Langevin dynamics: sampling from a density by its score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.noise import Stream
from graphgen.ops.stepping._affine import PerGraph
from graphgen.ops.stepping.sdes import root, wide
from graphgen.solvers.sde.parts import OnNonfinite, State, Watch, like, parts_of, prepare, two_buffers


def langevin(
    score: Callable[[Any], Any],
    state: State,
    graph: GraphBatch | Tensor,
    step_size: PerGraph,
    steps: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    graph_ids: Tensor | None = None,
    first_step: int = 0,
    keep: State | None = None,
    on_nonfinite: OnNonfinite = "raise",
    on_step: Callable[[float], None] | None = None,
) -> State:
    """``steps`` times ``x + e score(x) + sqrt(2 e temperature) xi``: unadjusted Langevin dynamics.

    Its stationary density is that of the score to the power 1 / temperature, up to an error of the order of e.

    Args:
        score: ``state -> gradient of the log-density``, one tensor per part of the state. The state handed to it is
            the loop's own, which it writes again later.
        state, graph: as :func:`sdeint`.
        step_size: e, a number or [B].
        temperature: 0 climbs.
        seed, graph_ids, first_step, keep, on_nonfinite, on_step: as :func:`sdeint`.

    Returns:
        The state after the last step. Differentiable through the steps, all of which are then held.

    Raises:
        GraphgenError: a value that is not finite; names step and graphs.

    Source: Roberts and Tweedie, Bernoulli 2 (1996).
    """
    levels = [(step_size, None)]
    return _walk(
        lambda level, x: score(x),
        state, graph, levels, steps, temperature, seed, graph_ids, first_step, keep, on_nonfinite, on_step, "langevin",
    )  # fmt: skip


def annealed_langevin(
    score: Callable[[Tensor, Any], Any],
    state: State,
    graph: GraphBatch | Tensor,
    sigmas: Sequence[PerGraph],
    epsilon: float,
    steps: int,
    *,
    temperature: float = 1.0,
    denoise: bool = False,
    seed: int = 0,
    graph_ids: Tensor | None = None,
    first_step: int = 0,
    keep: State | None = None,
    on_nonfinite: OnNonfinite = "raise",
    on_step: Callable[[float], None] | None = None,
) -> State:
    """Langevin dynamics on one noise level after the other, ``steps`` each, of size epsilon (sigma / last sigma)^2.

    Args:
        score: ``(sigma [B], state) -> score of the density with noise of that level``.
        sigmas: the levels, usually falling; each a number or [B].
        epsilon: the step size on the last level, in the convention of :func:`graphgen.ops.langevin_step`.
        denoise: end with ``x + sigma^2 score``, the mean of what the last level's noise was added to.
        Others: as :func:`langevin`.

    Source: Song and Ermon, NeurIPS 2019, algorithm 1; the last step from their NeurIPS 2020 paper.
    """
    last = wide(sigmas[-1])
    levels = [(epsilon * (wide(sigma) / last) ** 2, sigma) for sigma in sigmas]
    x = _walk(
        score,
        state, graph, levels, steps, temperature, seed, graph_ids, first_step, keep, on_nonfinite, on_step,
        "annealed_langevin",
    )  # fmt: skip
    if not denoise:
        return x
    number = first_step + len(levels) * steps
    movers = prepare(parts_of(x), graph, seed, graph_ids, keep)
    slopes = parts_of(score(_everywhere(sigmas[-1], movers[0].number_type, movers[0].broken), x))
    ended = [
        move(number, (part, slope), (1.0, last * last))
        for move, part, slope in zip(movers, parts_of(x), slopes, strict=True)
    ]
    return like(tuple(ended), state)


def _everywhere(number: PerGraph, dtype: torch.dtype, graphs: Tensor) -> Tensor:
    """[B]"""
    if isinstance(number, Tensor):
        return number.to(dtype)
    return torch.full(graphs.shape, number, dtype=dtype, device=graphs.device)


def _walk(
    score, state, graph, levels, steps, temperature, seed, graph_ids, first_step, keep, on_nonfinite, on_step, name
) -> State:
    x = parts_of(state)
    movers = prepare(x, graph, seed, graph_ids, keep, (Stream.STEP, Stream.PAIR_STEP))
    watch = Watch(name, movers, graph_ids, on_nonfinite, lambda step, b: f"level {(step - first_step) // steps}")
    total = len(levels) * steps
    buffers = two_buffers(x)
    number = 0
    for size, sigma in levels:
        at = None if sigma is None else _everywhere(sigma, movers[0].number_type, movers[0].broken)
        noise = root(2.0 * temperature * wide(size))
        for _ in range(steps):
            slopes = parts_of(score(at, like(x, state)))
            out = buffers[number % 2]
            x = tuple(
                [
                    move(first_step + number, (part, slope), (1.0, size), noise, None, target)
                    for move, part, slope, target in zip(movers, x, slopes, out, strict=True)
                ]
            )
            number += 1
            watch.after(number)
            if on_step is not None:
                on_step(number / total)
    return like(watch.finish(x), state)
