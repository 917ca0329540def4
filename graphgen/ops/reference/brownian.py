"""Brownian motion as a function of time, in torch operations; the engine's kernel gives the same bits."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.ops.reference import noise

_KEY_STREAM = 17
_CELL_LEVEL = 63
_SNAP = 1 / 4096
_MOST_CELLS = 2**31 - 1

Pair = tuple[Tensor, Tensor]


def check(
    ptr: Tensor,
    features: int,
    start: float | Tensor,
    end: float | Tensor,
    seed: int,
    cell: float,
    depth: int,
    stream: int,
    graph_ids: Tensor | None,
) -> tuple[float | Tensor, float | Tensor]:
    """Refuse what has no path; the times, a tensor of one number as that number."""
    noise.check(ptr, features, seed, stream, 0, graph_ids)
    if not 0 < cell < math.inf:
        raise ValueError(f"cell = {cell}: expected a length")
    if not 0 <= depth < 48:
        raise ValueError(f"depth = {depth}: expected 0 <= depth < 48")
    times = []
    for name, time in (("start", start), ("end", end)):
        if isinstance(time, Tensor) and time.dim() > 0:
            if time.shape != (ptr.numel() - 1,):
                raise ValueError(
                    f"{name}: expected a number or [{ptr.numel() - 1}], one per graph, got {list(time.shape)}"
                )
        else:
            time = float(time)
            if not abs(time / cell) < _MOST_CELLS:
                raise ValueError(f"{name} {time} is not within 2^31 cells of length {cell}")
        times.append(time)
    return times[0], times[1]


class _Place(NamedTuple):
    """A time as a cell, the shortest interval in it and what is left, a part of that."""

    cell: int
    digits: int
    rest: float

    @staticmethod
    def of(time: float, length: float, depth: int) -> _Place:
        position = time / length
        cell = math.floor(position)
        scaled = (position - cell) * 2.0**depth
        nearest = math.floor(scaled + 0.5)
        snaps = abs(scaled - nearest) <= _SNAP
        whole = nearest if snaps else math.floor(scaled)
        return _Place(cell + 1, 0, 0.0) if whole >> depth else _Place(cell, whole, 0.0 if snaps else scaled - whole)

    def since(self, length: float, depth: int) -> float:
        return length * ((self.digits + self.rest) / 2.0**depth)


class _Path(NamedTuple):
    """The path of one graph."""

    rows: int
    features: int
    seed: int
    length: float
    depth: int
    stream: int
    graph_id: Tensor
    real: torch.dtype

    def normal(self, seed: int, cell: int) -> Tensor:
        ptr = torch.tensor([0, self.rows], device=self.graph_id.device)
        step = cell & 0xFFFFFFFF
        return noise.normal(ptr, self.features, seed, self.stream, step, self.graph_id, dtype=self.real)

    def keys(self, cell: int, level: int, index: int) -> tuple[int, int]:
        """The seeds of a node's normals."""
        counter = [index & 0xFFFFFFFF, index >> 32 | level << 16, cell & 0xFFFFFFFF, _KEY_STREAM | self.stream << 16]
        words = [int(word) for word in noise.philox([torch.tensor([word]) for word in counter], self.seed)]
        return words[0] | words[1] << 32, words[2] | words[3] << 32

    def real_of(self, number: float) -> float:
        """A number as the kernel holds it."""
        return float(torch.tensor(number, dtype=self.real))

    def of_cell(self, cell: int) -> Pair:
        """Its increment and its space-time Levy area."""
        w = self.real_of(math.sqrt(self.length)) * self.normal(self.seed, cell)
        across = self.keys(cell, _CELL_LEVEL, 0)[1]
        return w, self.real_of(math.sqrt(self.length / 12.0)) * self.normal(across, cell)

    def descend(self, place: _Place, w: Tensor, h: Tensor) -> Pair:
        """What the path has travelled from the start of its cell: the increment and its integral."""
        done_w, done_u = torch.zeros_like(w), torch.zeros_like(w)
        length, level = self.length, 0
        while level < self.depth and (place.rest or place.digits & ((1 << (self.depth - level)) - 1)):
            along, across = self.keys(place.cell, level, place.digits >> (self.depth - level))
            x, y = self.normal(along, place.cell), self.normal(across, place.cell)
            root = math.sqrt(length)
            bend = 1.5 * h + self.real_of(root * 0.25) * x
            flat = 0.25 * h - self.real_of(root * 0.125) * x
            twist, middle = self.real_of(root * 0.14433756729740643) * y, 0.5 * w
            length *= 0.5
            if place.digits >> (self.depth - 1 - level) & 1:
                half = self.real_of(length)
                left_w, left_u = middle + bend, half * (0.5 * (middle + bend) + (flat + twist))
                done_w, done_u = done_w + left_w, done_u + (half * done_w + left_u)
                w, h = middle - bend, flat - twist
            else:
                w, h = middle + bend, flat + twist
            level += 1
        if place.rest:
            rest, end = self.number(place.rest), self.number(length)
            square = rest * rest
            more_u = end * (0.5 * square * w + (3.0 * square - 2.0 * square * rest) * h)
            more_w = rest * w + 6.0 * rest * (1.0 - rest) * h
            done_w, done_u = done_w + more_w, done_u + ((rest * end) * done_w + more_u)
        return done_w, done_u

    def number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self.real, device=self.graph_id.device)

    def over(self, start: float, end: float) -> Pair:
        early, late = min(start, end), max(start, end)
        first, last = _Place.of(early, self.length, self.depth), _Place.of(late, self.length, self.depth)
        total_w = torch.zeros((self.rows, self.features), dtype=self.real, device=self.graph_id.device)
        total_u = torch.zeros_like(total_w)
        for cell in range(first.cell, last.cell + (last.digits > 0 or last.rest > 0)):
            w, h = self.of_cell(cell)
            begins, ends = cell > first.cell or not (first.digits or first.rest), cell < last.cell
            since = 0.0 if begins else first.since(self.length, self.depth)
            until = self.length if ends else last.since(self.length, self.depth)
            to_w, to_u = (w, self.real_of(self.length) * (0.5 * w + h)) if ends else self.descend(last, w, h)
            piece = self.number(until - since)
            if not begins:
                from_w, from_u = self.descend(first, w, h)
                to_w, to_u = to_w - from_w, (to_u - from_u) - piece * from_w
            total_w, total_u = total_w + to_w, total_u + (piece * total_w + to_u)
        if end < start:
            return -total_w, self.number(start - end) * total_w - total_u
        return total_w, total_u


def brownian_increment(
    ptr: Tensor,
    features: int,
    start: float | Tensor,
    end: float | Tensor,
    seed: int,
    *,
    cell: float = 1.0,
    depth: int = 24,
    stream: int = 16,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    integral: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.brownian_increment`."""
    times = check(ptr, features, start, end, seed, cell, depth, stream, graph_ids)
    graphs = ptr.numel() - 1
    starts, ends = (t.tolist() if isinstance(t, Tensor) else [t] * graphs for t in times)
    real = torch.float64 if dtype is torch.float64 else torch.float32
    ids = torch.arange(graphs, device=ptr.device) if graph_ids is None else graph_ids
    increments, integrals = [ptr.new_zeros((0, features), dtype=real)], [ptr.new_zeros((0, features), dtype=real)]
    for g, rows in enumerate(ptr.diff().tolist()):
        path = _Path(rows, features, seed, cell, depth, stream, ids[g : g + 1], real)
        w, u = path.over(starts[g], ends[g])
        increments.append(w)
        integrals.append(u)
    w, u = torch.cat(increments).to(dtype), torch.cat(integrals).to(dtype)
    return (w, u) if integral else w
