"""Balls around nodes: where the tangents of an exact trace live, and how a round of messages leads from one to another.

A pair is a node, the center, and a node of the ball around it. The pairs of some radius are in order of their centers
and, within one, of their nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.message_passing.messages import Rows

# A product with so many times fewer rows is worth a copy of them.
_WORTH_TAKING = 2


class Round(NamedTuple):
    """One round of messages from pairs to pairs: what it reads of the tangents of either side, and its rows."""

    of_target: Tensor | None  # indices of the pairs whose tangents of target it reads, None for all
    of_source: Tensor | None
    rows: Rows  # with respect to those


class Balls:
    """Those around some nodes, of every radius up to one.

    Attributes:
        center: by radius, [P] the centers of the pairs.
        node: by radius, [P] their nodes.
    """

    def __init__(self, graph: GraphBatch, center: list[Tensor], node: list[Tensor]) -> None:
        self.center, self.node = center, node
        self._graph, self._rounds = graph, {}  # type: ignore[var-annotated]
        self._keys = [c * graph.num_nodes + n for c, n in zip(center, node, strict=True)]

    def moved(self, here: int, there: int) -> Tensor:
        """For every pair of radius `there` its index among those of radius `here`, or -1."""
        return self._index(here, self._keys[there])

    def round(self, target: int, source: int, out: int) -> Round:
        """From tangents of target and of source on balls of these radii to tangents on balls of radius `out`."""
        key = target, source, out
        if key not in self._rounds:
            self._rounds[key] = self._make_round(*key)
        return self._rounds[key]

    def _make_round(self, target: int, source: int, out: int) -> Round:
        graph, dtype = self._graph, self._graph.col.dtype
        home = self.node[out]
        row, slot, first = _slots(graph.rowptr.long(), home)
        at_other_end = self.center[out][row] * graph.num_nodes + graph.col.long()[slot]
        of_target, own = self._used(target, self.moved(target, out))
        of_source, ends = self._used(source, self._index(source, at_other_end))
        return Round(of_target, of_source, Rows(home.to(dtype), own.to(dtype), first.to(dtype), ends.to(dtype)))

    def _index(self, radius: int, wanted: Tensor) -> Tensor:
        keys = self._keys[radius]
        found = torch.searchsorted(keys, wanted).clamp(max=keys.shape[0] - 1)
        return torch.where(keys[found] == wanted, found, -1)

    def _used(self, radius: int, index: Tensor) -> tuple[Tensor | None, Tensor]:
        """The pairs that an index names, and the index among these alone; or all, if taking these out is no gain."""
        pairs, place = index.unique(return_inverse=True)
        missing = int(pairs.shape[0] > 0 and pairs[0] < 0)
        if _WORTH_TAKING * (pairs.shape[0] - missing) > self._keys[radius].shape[0]:
            return None, index
        return pairs[missing:], place - missing


def _slots(rowptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All slots of these rows: (which of the rows, slot), and the boundaries between the rows."""
    counts = rowptr[rows + 1] - rowptr[rows]
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    row = torch.arange(rows.shape[0], device=rows.device).repeat_interleave(counts)
    return row, torch.arange(row.shape[0], device=rows.device) - first[row] + rowptr[rows][row], first


def balls(graph: GraphBatch, radius: int, limit: int) -> list[Balls]:
    """Those of all nodes, in parts of about `limit` pairs of the largest radius."""
    center, node = zip(*_pairs(graph, radius), strict=True)
    sizes = torch.bincount(center[-1], minlength=graph.num_nodes).tolist()
    bounds, pairs = [0], 0
    for number, size in enumerate(sizes):
        if pairs and pairs + size > limit:
            bounds.append(number)
            pairs = 0
        pairs += size
    bounds.append(graph.num_nodes)
    at = torch.tensor(bounds, device=graph.device)
    edges = [torch.searchsorted(c, at).tolist() for c in center]
    return [
        Balls(
            graph,
            [c[edge[part] : edge[part + 1]] for c, edge in zip(center, edges, strict=True)],
            [n[edge[part] : edge[part + 1]] for n, edge in zip(node, edges, strict=True)],
        )
        for part in range(len(bounds) - 1)
        if bounds[part] < bounds[part + 1]
    ]


def _pairs(graph: GraphBatch, radius: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(center [P], node [P]) of radius 0, 1, ...; bonds count in both directions."""
    nodes = graph.num_nodes
    center = node = torch.arange(nodes, device=graph.device)
    ends = torch.stack([graph.edge_index, graph.edge_index.flip(0)], 1).flatten(1)
    around = GraphBatch.from_edge_index(ends.long(), nodes)
    yield center, node
    for _ in range(radius):
        row, slot, _ = _slots(around.rowptr, node)
        key = torch.cat([center * nodes + node, center[row] * nodes + around.col[slot]]).unique()
        center, node = key // nodes, key % nodes
        yield center, node
