"""How long the first step of an adaptive solve may be."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import ops
from graphgen.ops.stepping.attempts import Rules
from graphgen.solvers.ode.layout import Field, Flat, Layout


def first_lengths(field: Field, layout: Layout, start: Flat, slope: Flat, rules: Rules, order: int) -> Tensor:
    """[B] float64, by the size of the slope and of its change over a short step of Euler's method.

    Source: Hairer, Nørsett and Wanner, Solving ODEs I (1993), section II.4. In Python's numbers: a vectorised power
    rounds differently with the place of a graph in its batch.
    """
    sizes, slopes = _norms(layout, start, [start], [1.0], rules), _norms(layout, start, [slope], [1.0], rules)
    trial = [
        min(1e-6 * rules.span if size < 1e-5 or speed < 1e-5 else 0.01 * size / speed, rules.span)
        for size, speed in zip(sizes, slopes, strict=True)
    ]
    lengths = torch.tensor(trial, dtype=torch.float64, device=start[0].device)
    sign = -1.0 if rules.backwards else 1.0
    h = sign * lengths
    moved = [ops.rk_combine(part, [k], [1.0], h, ptr=ptr) for part, k, ptr in _triples(layout, start, slope)]
    later = field((rules.start + h).to(_accumulated(start)), layout.given(moved))
    changes = _norms(layout, start, [slope, later], [-1.0, 1.0], rules)
    chosen = []
    for short, speed, change in zip(trial, slopes, changes, strict=True):
        fastest = max(speed, change / short) if short > 0 else speed
        longest = (0.01 / fastest) ** (1 / order) if fastest > 1e-15 else max(1e-6 * rules.span, 1e-3 * short)
        length = min(100 * short, longest, rules.span)
        chosen.append(length if length > 0 else 1e-6 * rules.span)  # also where it is not a number
    return torch.tensor(chosen, dtype=torch.float64, device=start[0].device)


def _triples(layout: Layout, start: Flat, slope: Flat) -> zip:
    return zip(start, slope, layout.ptrs, strict=True)


def _accumulated(start: Flat) -> torch.dtype:
    return torch.float64 if start[0].dtype is torch.float64 else torch.float32


def _norms(layout: Layout, start: Flat, arrays: list[Flat], weights: list[float], rules: Rules) -> list[float]:
    """Of every graph the root mean square of a sum of arrays, in units of what is tolerated."""
    squares = torch.zeros(layout.graph.num_graphs, dtype=torch.float64, device=start[0].device)
    elements = torch.zeros_like(squares)
    for k, (part, ptr) in enumerate(zip(start, layout.ptrs, strict=True)):
        read, nothing = [array[k] for array in arrays], [0.0] * len(arrays)
        _, norm = ops.rk_combine_with_error(
            part, read, nothing, weights, 1.0, ptr=ptr, atol=rules.atol, rtol=rules.rtol
        )
        own = ptr.diff().to(torch.float64) * part.shape[1]
        squares, elements = squares + norm.double() ** 2 * own, elements + own
    return (squares / elements.clamp(min=1)).sqrt().tolist()
