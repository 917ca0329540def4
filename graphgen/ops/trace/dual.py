"""A state with some tangents, carried through a field made of graphgen's ops without torch's bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import Standin
from graphgen.ops.dense import activation_push, linear, softmax
from graphgen.ops.message_passing.messages import message_push


@dataclass(frozen=True, eq=False)
class Dual(Standin):
    """In place of a tensor [N, F], with K tangents [K, N, F] of it: it goes through ``linear``, ``activation``,
    ``softmax`` and ``message_sum``, and through sums and products with numbers and with tensors that do not depend on
    the state."""

    value: Tensor
    tangent: Tensor

    def linear(self, weight: Tensor, bias: Tensor | None) -> Dual:
        return Dual(linear(self.value, weight, bias), linear_tangents(self.tangent, weight))

    def activation(self, kind: str) -> Dual:
        return Dual(*activation_push(self.value, self.tangent, kind))

    def node_update(self, own: Dual, received: Dual, kind: str) -> Dual:
        return self + (own + received).activation(kind)

    def softmax(self) -> Dual:
        value = softmax(self.value)
        return Dual(value, softmax_tangents(value, self.tangent))

    def message_sum(self, source: Dual, edge_bias: Tensor, graph: GraphBatch, kind: str) -> Dual:
        if not isinstance(source, Dual):
            raise TypeError("message_sum: target and source must both depend on the state")
        return Dual(*message_push((self.value, source.value, edge_bias), (self.tangent, source.tangent), graph, kind))

    def __add__(self, other: Dual | Tensor | float) -> Dual:
        if isinstance(other, Dual):
            return Dual(self.value + other.value, self.tangent + other.tangent)
        return Dual(self.value + other, self.tangent)

    __radd__ = __add__

    def __mul__(self, other: Tensor | float) -> Dual:
        return Dual(self.value * other, self.tangent * other)

    __rmul__ = __mul__


def linear_tangents(tangents: Tensor, weight: Tensor) -> Tensor:
    """[K, R, M] tangents [K, R, F] times a weight [F, M]."""
    return linear(tangents.flatten(0, 1), weight).view(*tangents.shape[:2], weight.shape[1])


def softmax_tangents(probability: Tensor, tangents: Tensor) -> Tensor:
    """Those of a softmax, from those [K, R, F] of what it is of."""
    weighted = probability * tangents
    return weighted - probability * linear_tangents(weighted, weighted.new_ones((weighted.shape[2], 1)))
