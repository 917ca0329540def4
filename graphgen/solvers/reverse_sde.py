"""Sampling by a diffusion run backwards, with its score: predictor and corrector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import SDE, VP, PreparedStep
from graphgen.ops.stepping._affine import PerGraph
from graphgen.ops.stepping.steps import Predictor, corrector_coefficients, reverse_coefficients
from graphgen.solvers.sde.parts import Clock, OnNonfinite, Parts, State, Watch, like, parts_of, prepare, two_buffers

_Numbers = tuple[PerGraph, PerGraph, PerGraph]  # of the state, of the score, of the noise


def reverse_sde(
    score: Callable[[Tensor, Any], Any],
    state: State,
    graph: GraphBatch | Tensor,
    sde: SDE | tuple[SDE, ...],
    steps: int,
    *,
    t0: float = 1.0,
    t1: float = 1e-3,
    predictor: Predictor = "reverse_diffusion",
    corrections: int = 0,
    snr: float | tuple[float, ...] = 0.16,
    corrector_noise: float = 1.0,
    norm: Literal["graph", "batch"] = "graph",
    denoise: bool = True,
    seed: int = 0,
    graph_ids: Tensor | None = None,
    keep: State | None = None,
    on_nonfinite: OnNonfinite = "raise",
    on_step: Callable[[float], None] | None = None,
) -> State:
    """Carry dx = (drift(t) x - diffusion(t)^2 score) dt + diffusion(t) dw back from t0 to t1 in equal steps.

    In every step the corrections come first, each with a score of its own, then the predictor; of a state in two parts
    both move from where both were.

    Args:
        score: ``(t [B], state) -> gradient of the log-density at t``, one tensor per part of the state. The state
            handed to it is the loop's own, which it writes again later.
        state, graph: as :func:`sdeint`; usually noise of the deviation ``sde.std(1)``.
        sde: :class:`VP`, :class:`SubVP` or :class:`VE`, one for all parts or one for each.
        t0, t1: 0 <= t1 < t0 <= 1.
        predictor: as :func:`graphgen.ops.reverse_sde_step`.
        corrections: Langevin steps before each step.
        snr, corrector_noise, norm: as :func:`graphgen.ops.annealed_langevin_step`, whose noise_scale the second is
            (GDSS: scale_eps); snr one for all parts or one for each.
        denoise: let the last step be without noise.
        seed, graph_ids, keep, on_nonfinite, on_step: as :func:`sdeint`.

    Returns:
        The state at t1. Differentiable through the steps, all of which are then held.

    Raises:
        GraphgenError: a value that is not finite; names step, time and graphs.
        ValueError: a predictor that the SDE does not have.

    Source: Song et al., ICLR 2021, algorithms 1 to 5; GDSS (Jo et al., ICML 2022), algorithm 1.
    """
    if not 0 <= t1 < t0 <= 1:
        raise ValueError(f"reverse_sde: expected 0 <= t1 < t0 <= 1, got t0 = {t0} and t1 = {t1}")
    x = parts_of(state)
    sdes = sde if isinstance(sde, tuple) else (sde,) * len(x)
    ratios = snr if isinstance(snr, tuple) else (snr,) * len(x)
    predictors = prepare(x, graph, seed, graph_ids, keep)
    correctors = prepare(x, graph, seed, graph_ids, keep, (Stream.CORRECTOR, Stream.PAIR_CORRECTOR))
    clock = Clock(t0, t1, steps, predictors[0])
    dt = (t0 - t1) / max(steps, 1)
    watch = Watch("reverse_sde", predictors, graph_ids, on_nonfinite, lambda step, b: f"t = {clock(step)[b]:.4g}")
    buffers = two_buffers(x)

    def move(movers: tuple[PreparedStep, ...], number: int, x: Parts, slopes: Parts, numbers: list[_Numbers]) -> Parts:
        # A state of whose buffers neither is being read.
        out = buffers[0] if x[0] is not buffers[0][0] else buffers[1]
        return tuple(
            mover(number, (part, slope), (of_x, of_score), of_noise, None, target)
            for mover, part, slope, (of_x, of_score, of_noise), target in zip(
                movers, x, slopes, numbers, out, strict=True
            )
        )

    for k in range(steps):
        now, t = t0 - k * dt, clock(k)
        for number in range(k * corrections, (k + 1) * corrections):
            slopes = parts_of(score(t, like(x, state)))
            x = move(
                correctors,
                number,
                x,
                slopes,
                [
                    (
                        1.0,
                        *corrector_coefficients(
                            slope,
                            mover.keep,
                            mover.noise._replace(step=number),
                            ratio,
                            _alpha(one, now, dt),
                            corrector_noise,
                            norm,
                        ),
                    )
                    for slope, mover, ratio, one in zip(slopes, correctors, ratios, sdes, strict=True)
                ],
            )
        slopes = parts_of(score(t, like(x, state)))
        noisy = not (denoise and k == steps - 1)
        numbers = [reverse_coefficients(one, predictor, now, dt) for one in sdes]
        x = move(predictors, k, x, slopes, [(of_x, of_s, noise * noisy) for of_x, of_s, noise in numbers])
        watch.after(k + 1)
        if on_step is not None:
            on_step((k + 1) / steps)
    return like(watch.finish(x), state)


def _alpha(sde: SDE, t: float, dt: float) -> PerGraph:
    return 1.0 - sde.beta(t) * dt if isinstance(sde, VP) else 1.0
