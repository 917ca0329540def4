"""The loop over steps, for solves that nobody differentiates: everything happens in the same few arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphgen.ops.stepping.attempts import Point
from graphgen.solvers.ode.layout import Field, Flat, Layout

_LOOK_EVERY = 64  # steps; looking waits for a CUDA device


class Taken(NamedTuple):
    """A step as it was taken: what is needed to take it again.

    Attributes:
        times: of each stage, [B].
        h: [B]; 0 for graphs that did not move, because it was too long for them or they had arrived.
        before, after: [B] float64, how far each graph had come.
        alive: [B] bool, graphs that had not failed; None for all.
    """

    times: Sequence[Tensor]
    h: Tensor
    before: Tensor
    after: Tensor
    alive: Tensor | None = None

    @property
    def moved(self) -> Tensor:
        return self.after > self.before


class Step(NamedTuple):
    """What an observer sees of a step that some graphs took: where it began, and all its stages."""

    taken: Taken
    y: Point
    points: list[Point]
    slopes: list[Flat]


class Progress(NamedTuple):
    """What a solve tells about itself on its way, and what makes it stop."""

    max_steps: int
    on_step: Callable[[float], None] | None
    failed: Callable[[Any], None] | None  # None: graphs that fail are left behind
    late: Callable[[Any], None]


def march(
    field: Field,
    layout: Layout,
    attempts: Any,
    start: Flat,
    slope: Flat | None,
    progress: Progress,
    observe: Callable[[Step], None] | None = None,
) -> Flat:
    """Carry a state to the end of the span; `slope` is the field there, if it is known."""
    tableau, span, graphs = attempts.tableau, attempts.rules.span, attempts.h.shape[0]
    stages, fsal = len(tableau.c), tableau.fsal
    y = layout.point([part.clone() for part in start])
    points = [layout.point([torch.empty_like(part) for part in start]) for _ in range(stages - (1 if fsal else 0))]
    times, count = attempts.times, attempts.counts
    seldom = attempts.rules.equal_steps if start[0].is_cuda else 0
    attempts.control(0, tried=False)
    on_way, failed, step = count.tolist()[0], 0, 0
    while on_way:
        if step == progress.max_steps and not attempts.rules.equal_steps:
            progress.late(attempts)
            break
        if slope is None:
            slope = field(times[0], y.given)
        slopes = [slope]
        for i in range(1, stages):
            point = points[i - 1]
            attempts.stage(i, y, slope, point)
            slope = field(times[i], point.given)
            slopes.append(slope)
        attempts.finish(y, slope, None if fsal else points[-1])
        seen = None if observe is None else (attempts.time.clone(), attempts.h.clone(), attempts.done.clone())
        attempts.control(step)
        step += 1
        if not seldom or step % _LOOK_EVERY == 0 or step == seldom:
            on_way, moved, failed_now = count.tolist()
            if failed_now > failed:
                failed = failed_now
                if progress.failed is not None:
                    progress.failed(attempts)
        else:
            moved = graphs
        if observe is not None and seen is not None and moved:
            time, h, before = seen
            # Who did not move stays where it was, in time too.
            time = torch.where(attempts.accepted, time, time[0])
            h.masked_fill_(~attempts.accepted, 0)
            alive = attempts.failed_at < 0 if failed else None
            taken = Taken(time.unbind(0), h, before, attempts.done.clone(), alive)
            observe(Step(taken, y, points, slopes))
        if moved == graphs:
            slope = slopes[-1] if fsal else None
            y, points[-1] = points[-1], y
        elif moved == 0:
            slope = slopes[0]
        else:
            # First the slope: it may be a view of the state.
            slope = layout.choose(attempts.accepted, slopes[-1], slopes[0]) if fsal else None
            for k, (after, before) in enumerate(zip(points[-1].flat, y.flat, strict=True)):
                torch.where(layout.rows(attempts.accepted, k), after, before, out=before)
        if progress.on_step is not None:
            progress.on_step(float(attempts.done.min()) / span)
    return y.flat
