"""Sampling by a chain of Gaussian steps from noise to data: DDPM and DDIM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.stepping.steps import chain_coefficients
from graphgen.solvers.sde.parts import OnNonfinite, State, Watch, like, parts_of, prepare, two_buffers


def denoising_chain(
    predict: Callable[[int, Any], Any],
    state: State,
    graph: GraphBatch | Tensor,
    alpha_bars: Sequence[float],
    *,
    predicts: Literal["noise", "data"] = "noise",
    eta: float = 1.0,
    seed: int = 0,
    graph_ids: Tensor | None = None,
    keep: State | None = None,
    on_nonfinite: OnNonfinite = "raise",
    on_step: Callable[[float], None] | None = None,
) -> State:
    """Steps of :func:`graphgen.ops.ddpm_step` from each alpha_bar to the next; one to alpha_bar = 1 has no noise.

    Args:
        predict: ``(k, state with alpha_bars[k]) -> noise or data in it``, one tensor per part of the state. The state
            handed to it is the loop's own, which it writes again later.
        state, graph: as :func:`sdeint`; usually standard normal.
        alpha_bars: rising, one more than there are steps; usually to 1.
        predicts, eta: as :func:`graphgen.ops.ddpm_step`: eta = 1 is DDPM, 0 is DDIM.
        seed, graph_ids, keep, on_nonfinite, on_step: as :func:`sdeint`.

    Returns:
        The state of the last alpha_bar. Differentiable through the steps, all of which are then held.

    Raises:
        GraphgenError: a value that is not finite; names step and graphs.
        ValueError: alpha_bars that do not rise within (0, 1], or an eta outside [0, 1].

    Source: Ho et al., NeurIPS 2020, algorithm 2; Song, Meng and Ermon, ICLR 2021, equation 12.
    """
    steps = len(alpha_bars) - 1
    pairs = list(pairwise(alpha_bars))
    if steps < 0 or not 0 < alpha_bars[0] <= alpha_bars[-1] <= 1 or any(now >= after for now, after in pairs):
        raise ValueError("denoising_chain: alpha_bars must rise within (0, 1]")
    if not 0 <= eta <= 1:
        raise ValueError(f"denoising_chain: eta must be in [0, 1], got {eta}")
    x = parts_of(state)
    movers = prepare(x, graph, seed, graph_ids, keep)
    watch = Watch("denoising_chain", movers, graph_ids, on_nonfinite, lambda k, _: f"alpha_bar {alpha_bars[k]:.4g}")
    buffers = two_buffers(x)
    for k, (now, after) in enumerate(pairs):
        *coefficients, noise = chain_coefficients(now, after, predicts, eta, "posterior")
        predictions = parts_of(predict(k, like(x, state)))
        x = tuple(
            move(k, (part, prediction), coefficients, noise, None, target)
            for move, part, prediction, target in zip(movers, x, predictions, buffers[k % 2], strict=True)
        )
        watch.after(k + 1)
        if on_step is not None:
            on_step((k + 1) / steps)
    return like(watch.finish(x), state)
