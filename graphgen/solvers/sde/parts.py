"""What the loops share: a state in one part or two, its times, and the graphs that stopped being finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import PreparedStep
from graphgen.ops.stepping._affine import PerGraph

# Node features [N, F], or these and symmetric pair features [sum of n^2, G].
State = Tensor | tuple[Tensor, ...]
Parts = tuple[Tensor, ...]
OnNonfinite = Literal["raise", "mask"]

# So many steps between two looks at what broke: a look waits for the device.
_LOOK = 32
# So many steps whose times are made at once.
_BLOCK = 256


def parts_of(state: State) -> Parts:
    return state if isinstance(state, tuple) else (state,)


def like(parts: Parts, state: State) -> State:
    """In the shape in which the state came."""
    return parts if isinstance(state, tuple) else parts[0]


def rows_of(graph: GraphBatch | Tensor, count: int) -> tuple[Tensor, ...]:
    """The bounds of the graphs' rows in every part of a state."""
    ptr = (graph.ptr if isinstance(graph, GraphBatch) else graph).long()
    if count == 1:
        return (ptr,)
    if count == 2:
        return ptr, torch.cat([ptr.new_zeros(1), ptr.diff().square().cumsum(0)])
    raise ValueError(f"state: expected node features, or node and pair features, got {count} parts")


def prepare(
    state: Parts,
    graph: GraphBatch | Tensor,
    seed: int,
    graph_ids: Tensor | None,
    keep: State | None = None,
    streams: tuple[int, int] = (Stream.STEP, Stream.PAIR_STEP),
) -> tuple[PreparedStep, ...]:
    """A step of every part."""
    kept = (None,) * len(state) if keep is None else parts_of(keep)
    return tuple(
        PreparedStep(part, ptr, seed=seed, stream=streams[k], graph_ids=graph_ids, keep=kept[k], symmetric=k == 1)
        for k, (part, ptr) in enumerate(zip(state, rows_of(graph, len(state)), strict=True))
    )


def two_buffers(state: Parts) -> tuple[Parts, Parts]:
    """States to be written by turns, so that what a field is handed is never being written."""
    first, second = (
        tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in state) for _ in range(2)
    )
    return first, second


class Clock:
    """Times of a walk of equal steps, [B] each, made for many steps at once and always from its start.

    Attributes:
        h: a step's length, one number or [B].
        root: the deviation of a Brownian motion over a step.
    """

    def __init__(self, t0: PerGraph, t1: PerGraph, steps: int, step: PreparedStep) -> None:
        device = step.broken.device
        self._graphs, self._dtype = step.graphs, step.number_type
        for t in (t0, t1):
            if isinstance(t, Tensor) and t.shape != (step.graphs,):
                raise ValueError(f"t0, t1: expected a number or [{step.graphs}], one per graph, got {list(t.shape)}")
        start, end = (torch.as_tensor(t, dtype=torch.float64, device=device).detach() for t in (t0, t1))
        self._start, self._step = start, (end - start) / max(steps, 1)
        self.h: PerGraph = self._step if self._step.dim() else self._step.item()
        self.root: PerGraph = self.h.abs().sqrt() if isinstance(self.h, Tensor) else math.sqrt(abs(self.h))
        self._block = max(1, min(steps, _BLOCK))
        self._blocks: dict[float, tuple[int, tuple[Tensor, ...]]] = {}

    def __call__(self, step: int, node: float = 0.0) -> Tensor:
        """The time of every graph a share `node` of the way through a step."""
        held = self._blocks.get(node)
        if held is None or not 0 <= step - held[0] < self._block:
            first = step - step % self._block
            at = node + torch.arange(first, first + self._block, dtype=torch.float64, device=self._start.device)
            times = (self._start + at.unsqueeze(1) * self._step).to(self._dtype)
            held = self._blocks[node] = first, times.expand(self._block, self._graphs).unbind(0)
        return held[1][step - held[0]]


class Watch:
    """Raises an error that names step, time and graphs, or masks the graphs that broke."""

    def __init__(
        self,
        solver: str,
        steps: tuple[PreparedStep, ...],
        graph_ids: Tensor | None,
        on_nonfinite: OnNonfinite,
        time: Callable[[int, int], str],
    ) -> None:
        if on_nonfinite not in ("raise", "mask"):
            raise ValueError(f"{solver}: on_nonfinite must be 'raise' or 'mask', got {on_nonfinite!r}")
        self.solver, self.steps, self.graph_ids = solver, steps, graph_ids
        self.raises, self.time = on_nonfinite == "raise", time

    def broken(self) -> Tensor:
        """[B] the step in which a graph broke, or -1."""
        first = self.steps[0].broken
        for other in self.steps[1:]:
            both = torch.minimum(first, other.broken)
            first = torch.where(both < 0, torch.maximum(first, other.broken), both)
        return first

    def after(self, done: int) -> None:
        """To be called after every step."""
        if self.raises and done % _LOOK == 0:
            self.look()

    def look(self) -> None:
        broken = self.broken()
        wrong = (broken >= 0).nonzero().flatten()
        if not wrong.numel():
            return
        step = int(broken[wrong].min())
        there = wrong[broken[wrong] == step].tolist()
        names = there if self.graph_ids is None else self.graph_ids[there].tolist()
        shown = ", ".join(map(str, names[:5])) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
        raise GraphgenError(
            f"{self.solver}: not finite at step {step}, {self.time(step, there[0])}, graphs {shown}: "
            "look at the field there, or take smaller steps"
        )

    def finish(self, state: Parts) -> Parts:
        """To be called with the last state."""
        if self.raises:
            self.look()
            return state
        broken = self.broken() >= 0
        return tuple(
            torch.where(
                broken.repeat_interleave(step.noise.ptr.diff(), output_size=part.shape[0]).unsqueeze(1), torch.nan, part
            )
            for part, step in zip(state, self.steps, strict=True)
        )
