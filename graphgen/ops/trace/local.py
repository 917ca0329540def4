"""The exact trace of a field with a short reach, by tangents that live in balls around single nodes.

The derivative of f_n by x_n sums over the paths by which a number of node n comes back to n. In a field of L rounds of
messages such a path is, after l rounds, no more than l bonds away from n, and no more than L - l. So the tangents that
start in node n are carried on a ball that grows and shrinks again, F tangents a ball, instead of n F tangents over
every whole graph. With L = 1, the modular flow f(v_i, N(v_i)), the ball is the node itself and the trace that of the
Jacobian's diagonal blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import Standin
from graphgen.ops.dense import activation, activation_push, linear, softmax
from graphgen.ops.message_passing import gather, message_sum, segment_reduce
from graphgen.ops.message_passing.messages import message_tangents, pick_tangents
from graphgen.ops.trace.balls import Balls, balls
from graphgen.ops.trace.dual import linear_tangents, softmax_tangents

# Rows of tangents at a time: more would leave the caches.
_CHUNK_ROWS = 1 << 12


def local(f: Callable, x: Tensor, graph: GraphBatch, reach: int) -> tuple[Tensor, Tensor]:
    """f(x) and [B] the trace of its Jacobian.

    Args:
        f: made of graphgen's ops, sums and products with tensors; see :class:`Pushed`.
        x: [N, F].
        reach: rounds of messages, how many bonds away f looks.

    Raises:
        TypeError: f uses something else.
        ValueError: f makes more rounds of messages.
    """
    nodes, features = x.shape
    limit = max(1, _CHUNK_ROWS // max(features, 1))
    parts = graph.shared(f"balls {reach} {limit}", lambda: balls(graph, reach // 2, limit)) if nodes else []
    # A node's tangents begin with the unit vectors, whatever the node.
    start = _Tangents(torch.eye(features, dtype=x.dtype, device=x.device).unsqueeze(1))
    values = Values()
    value, diagonal = x, []
    for around in parts:
        values.rewind()
        end = f(Pushed(x, start, 0, _Place(graph, reach, around, values)))
        if not isinstance(end, Pushed):
            raise TypeError("divergence: with reach, the field must carry its Pushed state through to its result")
        value = end.value
        diagonal.append(end.tangents_at(0).diagonal(dim1=0, dim2=2))
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


class _Tangents:
    """Tangents [F, P, H] times a weight, put off until it is known of which rows it is wanted.

    One row alone is that of every pair, as long as nothing that differs from node to node was done to it.
    """

    def __init__(self, rows: Tensor, weight: Tensor | None = None) -> None:
        self._rows, self._weight = rows, weight

    @property
    def rows(self) -> Tensor:
        if self._weight is not None:
            self._rows, self._weight = linear_tangents(self._rows, self._weight), None
        return self._rows

    def at(self, index: Tensor | None) -> Tensor:
        """Rows with these indices, none missing, or all."""
        if index is None or self._rows.shape[1] == 1:
            return self.rows
        if self._weight is None:
            return self._rows.index_select(1, index)
        return linear_tangents(self._rows.index_select(1, index), self._weight)


@dataclass(frozen=True, eq=False)
class _Place:
    """What a part of the tangents has in common."""

    graph: GraphBatch
    reach: int
    balls: Balls
    values: Values


@dataclass(frozen=True, eq=False)
class Pushed(Standin):
    """A state with its tangents, in place of a tensor [N, F]: what a field is called with and returns.

    It goes through ``linear``, ``activation``, ``softmax`` and ``message_sum``, and through sums and products with
    numbers and with tensors that do not depend on the state, [N, F] or [N, 1].

    Attributes:
        rounds: how many rounds of messages were made, which says on what balls the tangents are.
    """

    value: Tensor
    tangents: _Tangents
    rounds: int
    place: _Place

    def radius(self, rounds: int) -> int:
        return min(rounds, self.place.reach - rounds)

    def tangents_at(self, radius: int) -> Tensor:
        """[F, P, H] on balls of some radius."""
        here = self.radius(self.rounds)
        rows = self.tangents.rows
        if here == radius:
            return rows
        return pick_tangents(rows, self.place.balls.moved(here, radius))

    def at_home(self, rows: Tensor) -> Tensor:
        """Rows of nodes as rows of pairs."""
        return gather(rows, self.place.balls.node[self.radius(self.rounds)])

    def new(self, make: Callable[..., Tensor], *args: Any, tangents: _Tangents) -> Pushed:
        return replace(self, value=self.place.values.next(make, *args), tangents=tangents)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Pushed:
        return self.new(linear, self.value, weight, bias, tangents=_Tangents(self.tangents.rows, weight))

    def activation(self, kind: str) -> Pushed:
        at = self.at_home(self.value)
        _, tangents = activation_push(at, self.tangents.rows.expand(-1, *at.shape), kind)
        return self.new(activation, self.value, kind, tangents=_Tangents(tangents))

    def node_update(self, own: Pushed, received: Pushed, kind: str) -> Pushed:
        return self + (own + received).activation(kind)

    def softmax(self) -> Pushed:
        value = self.place.values.next(softmax, self.value)
        tangents = softmax_tangents(self.at_home(value), self.tangents.rows.expand(-1, *self.at_home(value).shape))
        return replace(self, value=value, tangents=_Tangents(tangents))

    def message_sum(self, source: Pushed, edge_bias: Tensor, graph: GraphBatch, kind: str) -> Pushed:
        if graph is not self.place.graph or not isinstance(source, Pushed):
            raise TypeError("message_sum: target and source must both depend on the state, on the divergence's graph")
        rounds = max(self.rounds, source.rounds) + 1
        if rounds > self.place.reach:
            raise ValueError(f"divergence: the field makes more rounds of messages than its reach, {self.place.reach}")
        radii = self.radius(self.rounds), self.radius(source.rounds), self.radius(rounds)
        of_target, of_source, rows = self.place.balls.round(*radii)
        parts = (self.value, source.value, edge_bias)
        along = (self.tangents.at(of_target), source.tangents.at(of_source))
        tangents = message_tangents(parts, along, rows, graph, kind)
        return replace(
            self.new(message_sum, *parts, graph, kind, tangents=_Tangents(tangents)),
            rounds=rounds,
        )

    def __add__(self, other: Pushed | Tensor | float) -> Pushed:
        if not isinstance(other, Pushed):
            return self.new(torch.add, self.value, other, tangents=self.tangents)
        rounds = max(self.rounds, other.rounds)
        radius = self.radius(rounds)
        tangents = _Tangents(self.tangents_at(radius) + other.tangents_at(radius))
        return replace(self.new(torch.add, self.value, other.value, tangents=tangents), rounds=rounds)

    __radd__ = __add__

    def __mul__(self, other: Tensor | float) -> Pushed:
        along = self.at_home(other.expand(self.value.shape[0], -1)) if isinstance(other, Tensor) else other
        return self.new(torch.mul, self.value, other, tangents=_Tangents(self.tangents.rows * along))

    __rmul__ = __mul__
