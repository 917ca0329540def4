"""The first attempts of a generation, seen on their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphgen.generate import draw_structures
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.trajectory import Trajectory, trajectories

TIMES = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Denser at the start, where a flow to well separated labels decides; all are ends of one of 20 steps."""

WHOLE_TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""For whole molecules, whose clock is uneven already."""


def follow(
    model: Any,
    structures: EncodedMolecules,
    count: int = 4,
    seed: int = 0,
    steps: int | None = None,
    times: Sequence[float] = TIMES,
    device: str = "cpu",
) -> list[Trajectory]:
    """The first ``count`` attempts of ``generate(model, structures, n, seed, steps=steps)``, none left out.

    A model that decodes at once has no way to follow, and gets no trajectories.

    Args:
        model: has ``trajectory(graph, ids, seed, times, steps)``, a list of :class:`Frame`, and ``vocabulary``; of
            whole molecules, ``trajectory(ids, seed, times)``, which gives the graphs too, in its own steps and at
            :data:`WHOLE_TIMES`.
        structures: whose bonds are used, if any are.
        steps: of the sampler; None for as many as the model's own sample takes.
        times: when to look, from 0 (noise) to 1 (the molecule), in order.

    Raises:
        GraphgenError: no structures.
    """
    if not hasattr(model, "trajectory"):
        return []
    model.to(device).eval()
    if model.samples_bonds:
        graph, frames = model.trajectory(torch.arange(count, device=device), seed, WHOLE_TIMES)
        return trajectories(frames, graph, model.vocabulary.names)
    batch = structures.batch(draw_structures(len(structures), count, seed), device)
    sampling = {} if steps is None else {"steps": steps}
    frames = model.trajectory(batch.graph, torch.arange(count, device=device), seed, times, **sampling)
    return trajectories(frames, batch.graph, model.vocabulary.names)
