"""The solution at requested times, which every graph passes in a step of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen import ops
from graphgen.ops.stepping import Tableau
from graphgen.solvers.ode.layout import Flat, Layout
from graphgen.solvers.ode.march import Taken


class Passed(NamedTuple):
    """A requested time within a step of some graphs."""

    number: int
    graphs: Tensor  # [B] bool
    weights: list[Tensor]  # of each stage, [B]; 0 for the other graphs


class Dense:
    """Gathers the states at `offsets`, ascending distances from the start."""

    def __init__(self, layout: Layout, tableau: Tableau, offsets: Sequence[float], start: Flat) -> None:
        self.layout, self.tableau, self.offsets = layout, tableau, list(offsets)
        # A graph that never comes there has no state there.
        unknown = [torch.full_like(part, torch.nan) for part in start]
        self.values = [start if offset == 0 else unknown for offset in self.offsets]

    def passed(self, taken: Taken) -> list[Passed]:
        """The times that lie within a step."""
        moved = taken.moved
        first = bisect_right(self.offsets, float(torch.where(moved, taken.before, torch.inf).min()))
        last = bisect_right(self.offsets, float(taken.after.max()))
        found = []
        for number in range(first, last):
            offset = self.offsets[number]
            graphs = moved & (taken.before < offset) & (offset <= taken.after)
            theta = (offset - taken.before) / (taken.after - taken.before)
            weights = []
            for row in self.tableau.dense:
                value = torch.zeros_like(theta)
                for coefficient in reversed(row):
                    value = (value + coefficient) * theta
                weights.append(torch.where(graphs, taken.h * value, 0.0).to(taken.h.dtype))
            found.append(Passed(number, graphs, weights))
        return found

    def state(self, at: Passed, y: Flat, slopes: Sequence[Flat]) -> Flat:
        """The state there, of the graphs that pass."""
        return [
            ops.affine_noise_step([part, *(slope[k] for slope in slopes)], [1.0, *at.weights], ptr=self.layout.ptrs[k])
            for k, part in enumerate(y)
        ]

    def keep(self, at: Passed, state: Sequence[Tensor]) -> None:
        self.values[at.number] = self.layout.choose(at.graphs, state, self.values[at.number])

    def stacked(self) -> Flat:
        """[T, rows, features] per tensor of the state."""
        return [torch.stack(states) for states in zip(*self.values, strict=True)]
