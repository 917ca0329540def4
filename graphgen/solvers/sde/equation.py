"""An SDE on a batch of graphs as the schemes see it: drift, diffusion, and one fused step that takes both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import VE, VP, PreparedStep
from graphgen.ops.stepping._affine import MAX_TERMS, PerGraph
from graphgen.solvers.sde.parts import Clock, Parts, State

Field = Callable[[Tensor, Any], Any]  # (t [B], state) -> one tensor per part
Diffusion = Field | PerGraph | VP | VE | tuple[PerGraph, ...]
KINDS = ("diagonal", "additive", "scalar", "general")

_AREAS = {Stream.STEP: Stream.AREA, Stream.PAIR_STEP: Stream.PAIR_AREA}


def _field_of(g: Diffusion, state: State) -> Field:
    """As f is."""
    if isinstance(g, VP | VE):
        sde = g
        return lambda t, x: (sde.diffusion(t),) * len(x) if isinstance(x, tuple) else sde.diffusion(t)
    if callable(g):
        return g
    sizes = (g,) * len(state) if isinstance(state, tuple) and not isinstance(g, tuple) else g
    return lambda t, x: sizes


class Equation:
    """dx = f(t, x) dt + g(t, x) dw.

    Every graph has a Brownian motion for each of its numbers where the noise is diagonal or additive, and else one
    (scalar) or M (general) that its numbers share.
    """

    def __init__(
        self, f: Field, g: Diffusion, kind: str, state: State, steps: tuple[PreparedStep, ...], clock: Clock
    ) -> None:
        self.f, self.g, self.steps, self.clock = f, _field_of(g, state), steps, clock
        self.many = isinstance(state, tuple)
        self.shared = kind in ("scalar", "general")
        self.h, self.root = clock.h, clock.root
        self._motions = torch.arange(steps[0].graphs + 1, device=steps[0].broken.device) if self.shared else None
        self._drawn: tuple[int, Tensor] | None = None

    def drift(self, t: Tensor, x: Parts) -> Parts:
        return self.f(t, x) if self.many else (self.f(t, x[0]),)

    def diffusion(self, t: Tensor, x: Parts) -> tuple[PerGraph, ...]:
        """Of every part a number, [B], [N, F] or [N, F, M]."""
        return self.g(t, x) if self.many else (self.g(t, x[0]),)

    def arrays(self, g: Sequence[PerGraph], x: Parts) -> Parts:
        """[N, F] each."""
        return tuple(self._array(size, part, step) for size, part, step in zip(g, x, self.steps, strict=True))

    def _array(self, g: PerGraph, part: Tensor, step: PreparedStep) -> Tensor:
        if not isinstance(g, Tensor):
            return torch.full_like(part, g)
        if g.dim() == 1:
            g = g.to(part.dtype).repeat_interleave(step.noise.ptr.diff()).unsqueeze(1)
        return g.squeeze(2) if g.dim() == 3 else g.expand_as(part)

    # ---- noise ------------------------------------------------------------------------------------------------------

    def normals(self, k: int, area: bool = False) -> Parts:
        """Those of step k: of every number, or [B] of every graph."""
        if self.shared:
            return (self._motions_of(k, 1, area)[:, 0],) * len(self.steps)
        drawn = []
        for step in self.steps:
            ptr, graph_ids, _, seed, stream, _, symmetric = step.noise
            stream = _AREAS[Stream(stream)] if area else stream
            seed &= 0xFFFFFFFFFFFFFFFF
            drawn.append(ops.normal(ptr, step.shape[1], seed, stream, k, graph_ids, step.dtype, symmetric))
        return tuple(drawn)

    def _motions_of(self, k: int, count: int, area: bool = False) -> Tensor:
        """[B, count] of Brownian motions that a graph's numbers share."""
        step = self.steps[0]
        seed, stream = step.noise.seed & 0xFFFFFFFFFFFFFFFF, Stream.AREA if area else step.noise.stream
        assert self._motions is not None
        return ops.normal(self._motions, count, seed, stream, k, step.noise.graph_ids, step.number_type)

    def weighed(self, g: Tensor, weight: Tensor) -> tuple[Tensor, PerGraph]:
        """The term and the coefficient that are root * weight * g, of a weight made of :meth:`normals`."""
        return (g, weight * self.root) if self.shared else (g * weight, self.root)

    # ---- the step ---------------------------------------------------------------------------------------------------

    def move(
        self,
        k: int,
        x: Parts,
        slopes: Sequence[tuple[Parts, PerGraph]],
        g: Sequence[PerGraph] | None,
        out: Parts | None = None,
        watched: bool = True,
    ) -> Parts:
        """``x + sum of coefficient * slope + g dw_k``."""
        moved = []
        for p, step in enumerate(self.steps):
            terms: list[Tensor] = [x[p]]
            coefficients: list[PerGraph] = [1.0]
            for slope, coefficient in slopes:
                terms.append(slope[p])
                coefficients.append(coefficient)
            noise: PerGraph = 0.0
            array: Tensor | None = None
            if g is not None:
                noise, array = self._noise(k, g[p], p, terms, coefficients)
            while len(terms) > MAX_TERMS:
                some = step(k, terms[:MAX_TERMS], coefficients[:MAX_TERMS], watched=False)
                terms, coefficients = [some, *terms[MAX_TERMS:]], [1.0, *coefficients[MAX_TERMS:]]
            moved.append(step(k, terms, coefficients, noise, array, None if out is None else out[p], watched))
        return tuple(moved)

    def _noise(
        self, k: int, g: PerGraph, p: int, terms: list[Tensor], coefficients: list[PerGraph]
    ) -> tuple[PerGraph, Tensor | None]:
        """What the fused step makes itself; shared noise becomes terms."""
        if not self.shared:
            if isinstance(g, Tensor) and g.dim() != 1:
                return self.root, g
            return g * self.root, None
        g = g if isinstance(g, Tensor) and g.dim() == 3 else self._array(g, terms[0], self.steps[p]).unsqueeze(2)
        count = g.shape[2]
        if self._drawn is None or self._drawn[0] != k or self._drawn[1].shape[1] != count:
            self._drawn = (
                k,
                self._motions_of(k, count) * (self.root.unsqueeze(1) if isinstance(self.root, Tensor) else self.root),
            )
        terms.extend(g.unbind(2))
        coefficients.extend(self._drawn[1].unbind(1))
        return 0.0, None
