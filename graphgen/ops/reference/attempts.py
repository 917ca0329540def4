"""The attempts of a solve in plain torch; see graphgen.ops.stepping.attempts.Attempts, argument by argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen.ops.reference import stepping


class Attempts:
    def __init__(self, tableau: Any, blocks: Sequence[tuple[Tensor, Tensor]], rules: Any) -> None:
        like, ptr = blocks[0]
        graphs, device = ptr.shape[0] - 1, like.device
        real = torch.float64 if like.dtype is torch.float64 else torch.float32
        self.tableau, self.rules = tableau, rules
        self.done = torch.zeros(graphs, dtype=torch.float64, device=device)
        self.length = torch.full_like(self.done, rules.span)
        self.h = torch.zeros(graphs, dtype=real, device=device)
        self.time = torch.zeros((len(tableau.c), graphs), dtype=real, device=device)
        self.times = self.time.unbind(0)
        self.accepted = torch.zeros(graphs, dtype=torch.bool, device=device)
        self.failed_at = torch.full((graphs,), -1, dtype=torch.int64, device=device)
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        self.norms = [torch.zeros(graphs, dtype=real, device=device) for _ in blocks]
        self.ptrs = [boundaries.long() for _, boundaries in blocks]
        self.features = [rows.shape[1] for rows, _ in blocks]
        self._slopes: list[Any] = [None] * len(tableau.b)

    def stage(self, i: int, y: Any, slope: Sequence[Tensor], out: Any) -> None:
        self._slopes[i - 1] = slope
        for k, result in enumerate(out.flat):
            slopes = [before[k] for before in self._slopes[:i]]
            stepping.rk_combine(y.flat[k], slopes, self.tableau.a[i], self.h, ptr=self.ptrs[k], out=result)

    def finish(self, y: Any, slope: Sequence[Tensor], out: Any) -> None:
        tableau, rules = self.tableau, self.rules
        self._slopes[-1] = slope
        for k, norm in enumerate(self.norms):
            slopes, ptr = [before[k] for before in self._slopes], self.ptrs[k]
            result = stepping.rk_combine(y.flat[k], slopes, tableau.b, self.h, ptr=ptr)
            if rules.equal_steps:
                norm.copy_(stepping.error_norm(result * 0, [], [], [], 0.0, ptr, 1.0, 0.0))
            else:
                tolerances = rules.atol, rules.rtol
                norm.copy_(stepping.error_norm(y.flat[k], slopes, tableau.b, tableau.error, self.h, ptr, *tolerances))
            if out is not None:
                out.flat[k].copy_(result)

    def control(self, step: int, tried: bool = True) -> None:
        rules, span = self.rules, self.rules.span
        on_way = (self.failed_at < 0) & (self.done < span)
        if tried:
            square = self._squared_error()
            good = torch.isfinite(square) if rules.equal_steps else square <= 1
            self.accepted.copy_(good & on_way)
            bad = on_way & ~good
            if not rules.equal_steps:
                bad = bad & (self.length <= span * rules.smallest)
            self.failed_at[bad] = step
            left = span - self.done
            after = torch.where(self.length >= left, span, self.done + self.length)
            if rules.equal_steps:
                after = torch.full_like(after, self._boundary(step + 1))
            else:
                ratio = rules.safety * square.pow(-0.5 / self.tableau.error_order)
                ratio = ratio.nan_to_num(rules.shrink, rules.grow).clamp(rules.shrink, rules.grow)
                ratio = torch.where(good, ratio, ratio.clamp(max=rules.safety))
                self.length.mul_(torch.where(on_way, ratio, 1.0))
            self.done.copy_(torch.where(self.accepted, after, self.done))
        else:
            self.accepted.zero_()
        on_way = (self.failed_at < 0) & (self.done < span)
        if rules.equal_steps:
            self.length.copy_(self._boundary(step + 1 + int(tried)) - self.done)
        torch.minimum(self.length, span - self.done, out=self.length)
        sign, tried_length = -1.0 if rules.backwards else 1.0, torch.where(on_way, self.length, 0.0)
        self.h.copy_(sign * tried_length)
        for node, time in zip(self.tableau.c, self.times, strict=True):
            time.copy_(rules.start + sign * (self.done + node * tried_length))
        self.counts.copy_(torch.stack([part.sum() for part in (on_way, self.accepted, self.failed_at >= 0)]))

    def _boundary(self, step: int) -> float:
        return self.rules.span if step == self.rules.equal_steps else self.rules.span * step / self.rules.equal_steps

    def _squared_error(self) -> Tensor:
        """[B] over all elements of a graph, whichever part of the state they are in."""
        square, elements = torch.zeros_like(self.done), torch.zeros_like(self.done)
        for norm, ptr, features in zip(self.norms, self.ptrs, self.features, strict=True):
            own = ptr.diff().to(torch.float64) * features
            square, elements = square + norm.double() ** 2 * own, elements + own
        return square / elements.clamp(min=1)
