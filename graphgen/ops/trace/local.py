"""The exact trace of a field with a short reach, by tangents that live in balls around single nodes.

The derivative of f_n by x_n sums over the paths by which a number of node n comes back to n. A field of L rounds of
messages has no such path further out than L // 2 bonds. So the tangent that starts in node n is carried on the ball of
that radius alone, F tangents a ball, instead of n F tangents over every whole graph. With L = 1, the modular flow
f(v_i, N(v_i)), the ball is the node itself and the trace that of the Jacobian's diagonal blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import Standin
from graphgen.ops.dense import activation, activation_slope, linear, softmax
from graphgen.ops.message_passing import gather, message_sum, segment_reduce
from graphgen.ops.message_passing.messages import message_tangent

# Rows of tangents at a time: more would leave the caches.
_CHUNK_ROWS = 1 << 12


class Balls(NamedTuple):
    """Balls of some radius around some nodes, one tangent a row and F of them for every node of a ball.

    Attributes:
        home: [R] the node whose state a row is the tangent of.
        center: [C * F] the rows of the nodes the balls are around.
        graph: the edges within balls; its nodes are the rows.
    """

    home: Tensor
    center: Tensor
    graph: GraphBatch


def local(f: Callable, x: Tensor, graph: GraphBatch, reach: int) -> tuple[Tensor, Tensor]:
    """f(x) and [B] the trace of its Jacobian.

    Args:
        f: made of graphgen's ops, sums and products with tensors; see :class:`Pushed`.
        x: [N, F].
        reach: rounds of messages, how many bonds away f looks.

    Raises:
        TypeError: f uses something else.
    """
    features = x.shape[1]
    # A round leaves the ball by one bond where it only looks, so an odd number of rounds needs the next bond too.
    chunks = graph.shared(f"balls {reach} {features}", lambda: _chunks(graph, (reach + 1) // 2, features))
    values = Values()
    value, diagonal = x, []
    for balls in chunks:
        start = x.new_zeros((balls.home.shape[0], features))
        which = torch.arange(features, device=x.device).repeat(balls.center.shape[0] // max(features, 1))
        start[balls.center, which] = 1
        values.rewind()
        end = f(Pushed(x, start, graph, balls, values))
        if not isinstance(end, Pushed):
            raise TypeError("divergence: with reach, the field must carry its Pushed state through to its result")
        value = end.value
        diagonal.append(end.tangent[balls.center, which].view(-1, features))
    rows = torch.cat(diagonal) if diagonal else f(x)
    per_node = linear(rows, rows.new_ones((features, 1)))
    return value, segment_reduce(per_node, graph.ptr).squeeze(1)


class Values:
    """The field's own values, computed with the first chunk of tangents and found again with the others."""

    def __init__(self) -> None:
        self.known: list[Tensor] = []
        self.rewind()

    def rewind(self) -> None:
        self.at = 0

    def next(self, make: Callable[..., Tensor], *args: Any) -> Tensor:
        if self.at == len(self.known):
            self.known.append(make(*args))
        self.at += 1
        return self.known[self.at - 1]


@dataclass(frozen=True, eq=False)
class Pushed(Standin):
    """A state with its tangents, in place of a tensor [N, F]: what a field is called with and returns.

    It goes through ``linear``, ``activation``, ``softmax`` and ``message_sum``, and through sums and products with
    numbers and with tensors that do not depend on the state, [N, F] or [N, 1].
    """

    value: Tensor
    tangent: Tensor
    graph: GraphBatch
    balls: Balls
    values: Values

    def at_home(self, rows: Tensor) -> Tensor:
        """Rows of nodes as rows of tangents."""
        return gather(rows, self.balls.home)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Pushed:
        return replace(
            self, value=self.values.next(linear, self.value, weight, bias), tangent=linear(self.tangent, weight)
        )

    def activation(self, kind: str) -> Pushed:
        tangent = activation_slope(self.at_home(self.value), self.tangent, kind)
        return replace(self, value=self.values.next(activation, self.value, kind), tangent=tangent)

    def softmax(self) -> Pushed:
        value = self.values.next(softmax, self.value)
        probability = self.at_home(value)
        weighted = probability * self.tangent
        total = linear(weighted, weighted.new_ones((weighted.shape[1], 1)))
        return replace(self, value=value, tangent=weighted - probability * total)

    def message_sum(self, source: Pushed, edge_bias: Tensor, graph: GraphBatch, kind: str) -> Pushed:
        if graph is not self.graph or not isinstance(source, Pushed):
            raise TypeError("message_sum: target and source must both depend on the state, on the divergence's graph")
        parts = (self.at_home(self.value), self.at_home(source.value), edge_bias)
        tangent = message_tangent(parts, (self.tangent, source.tangent), self.balls.graph, kind)
        value = self.values.next(message_sum, self.value, source.value, edge_bias, graph, kind)
        return replace(self, value=value, tangent=tangent)

    def __add__(self, other: Pushed | Tensor | float) -> Pushed:
        if isinstance(other, Pushed):
            value = self.values.next(torch.add, self.value, other.value)
            return replace(self, value=value, tangent=self.tangent + other.tangent)
        return replace(self, value=self.values.next(torch.add, self.value, other))

    __radd__ = __add__

    def __mul__(self, other: Tensor | float) -> Pushed:
        along = self.at_home(other.expand(self.value.shape[0], -1)) if isinstance(other, Tensor) else other
        return replace(self, value=self.values.next(torch.mul, self.value, other), tangent=self.tangent * along)

    __rmul__ = __mul__


def _pairs(graph: GraphBatch, radius: int) -> tuple[Tensor, Tensor, GraphBatch]:
    """(center [P], node [P], edges between the pairs of a center), pairs in order."""
    nodes = graph.num_nodes
    center = node = torch.arange(nodes, device=graph.device)
    ends = torch.stack([graph.edge_index, graph.edge_index.flip(0)], 1).flatten(1)
    around = GraphBatch.from_edge_index(ends.long(), nodes)
    for _ in range(radius):
        _, slots, _ = _slots(around.rowptr, node)
        grown = torch.cat(
            [center * nodes + node, center.repeat_interleave(around.degree[node]) * nodes + around.col[slots]]
        )
        key = grown.unique()
        center, node = key // nodes, key % nodes
    key = center * nodes + node
    row, slots, counts = _slots(graph.rowptr.long(), node)
    wanted = center[row] * nodes + graph.col.long()[slots]
    found = torch.searchsorted(key, wanted).clamp(max=max(key.shape[0] - 1, 0))
    inside = key[found] == wanted if key.numel() else wanted == 0
    rowptr = torch.cat([counts.new_zeros(1), counts.new_zeros(key.shape[0]).index_add(0, row, inside.long()).cumsum(0)])
    kinds = None if graph.edge_attr is None else graph.edge_attr[slots[inside]]
    edges = GraphBatch(
        ptr=torch.tensor([0, key.shape[0]], device=graph.device),
        rowptr=rowptr,
        col=found[inside],
        perm=torch.arange(int(inside.sum()), device=graph.device),
        edge_attr=kinds,
        num_edge_types=graph.num_edge_types,
    )
    return center, node, edges


def _slots(rowptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All slots of these rows: (which of the rows, slot), and how many each row has."""
    counts = rowptr[rows + 1] - rowptr[rows]
    row = torch.arange(rows.shape[0], device=rows.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    return row, torch.arange(row.shape[0], device=rows.device) - before[row] + rowptr[rows][row], counts


def _chunks(graph: GraphBatch, radius: int, features: int) -> list[Balls]:
    center, node, edges = _pairs(graph, radius)
    chunks = []
    limit = max(1, _CHUNK_ROWS // max(features, 1))
    sizes = torch.bincount(center, minlength=graph.num_nodes).tolist()
    first = rows = 0
    for size in sizes:
        if rows and rows + size > limit:
            chunks.append(_balls(center, node, edges, slice(first, first + rows), features))
            first, rows = first + rows, 0
        rows += size
    if rows:
        chunks.append(_balls(center, node, edges, slice(first, first + rows), features))
    return chunks


def _balls(center: Tensor, node: Tensor, edges: GraphBatch, part: slice, features: int) -> Balls:
    """F tangents for every pair of this part, side by side."""
    center, node = center[part], node[part]
    tangents = torch.arange(features, device=center.device)
    pairs = torch.arange(part.start, part.stop, device=center.device).repeat_interleave(features)
    row, slots, counts = _slots(edges.rowptr, pairs)
    copies = GraphBatch(
        ptr=torch.tensor([0, pairs.shape[0]], device=center.device),
        rowptr=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        col=(edges.col[slots] - part.start) * features + row % features,
        perm=torch.arange(slots.shape[0], device=center.device),
        edge_attr=None if edges.edge_attr is None else edges.edge_attr[slots],
        num_edge_types=edges.num_edge_types,
    )
    own = (center == node).nonzero()
    return Balls(node.repeat_interleave(features), (own * features + tangents).flatten(), copies)
