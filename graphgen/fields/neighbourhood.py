"""The field of the modular flow, f(v_i, N(v_i), t): rounds of messages about the state, with time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields.grand import DiffusionLayer
from graphgen.fields.layers import Linear, MessageLayer
from graphgen.fields.rbf import RBFLayer
from graphgen.graph import GraphBatch

# Bond counts from 0 to 4 of each type are told apart: no atom of the data has more.
_MOST_BONDS = 4

# What an atom learns of its neighbours in a round: a network of both ends and the bond, radial basis functions of
# distances, or attention that diffuses.
MESSAGES: dict[str, type[nn.Module]] = {"nn": MessageLayer, "rbf": RBFLayer, "grand": DiffusionLayer}


class NeighbourhoodField(nn.Module):
    """A message-passing network on the bonds of a molecule, with time.

    What depends on the bonds alone is computed once per graph (:meth:`bind`) and shared by every evaluation of a
    solve: the number of single, double and triple bonds of each atom, and some rounds of messages about them.

    Args:
        channels: c, numbers per node in and out.
        edge_types: number of bond types; ``graph.edge_attr`` holds the type of each edge, both directions present.
        hidden: width.
        layers: rounds of messages about the state, so the field sees this many bonds far.
        context_layers: rounds of messages about the bonds alone.
        messages: how the state is seen from a neighbour: "nn", "rbf" or "grand", see :data:`MESSAGES`.

    Attributes:
        reach: what to tell :func:`graphgen.ops.divergence` of this field.

    Raises:
        ValueError: unknown messages.
    """

    def __init__(
        self,
        channels: int,
        edge_types: int,
        hidden: int = 64,
        layers: int = 3,
        context_layers: int = 3,
        messages: str = "nn",
    ) -> None:
        super().__init__()
        if messages not in MESSAGES:
            raise ValueError(f"NeighbourhoodField: messages must be one of {list(MESSAGES)}, got {messages!r}")
        self.edge_types = edge_types
        self.reach = layers if messages == "nn" else None
        self.structure = Linear(edge_types * (_MOST_BONDS + 1), hidden)
        self.context = nn.ModuleList(MessageLayer(hidden, edge_types) for _ in range(context_layers))
        self.time_in = Linear(1, hidden)
        self.time_out = Linear(hidden, hidden, bias=False)
        self.state = Linear(channels, hidden, bias=False)
        self.layers = nn.ModuleList(MESSAGES[messages](hidden, edge_types) for _ in range(layers))
        self.out = Linear(hidden, channels)

    def bind(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        """The field on these graphs: ``(t [B], x [N, c]) -> [N, c]``.

        Raises:
            ValueError: the graph has no bond types.
        """
        context = self.structure(self._bond_counts(graph))
        for layer in self.context:
            context = layer(context, graph)

        def field(t: Tensor, x: Tensor) -> Tensor:
            time = self.time_out(ops.activation(self.time_in(t.unsqueeze(1))))
            h = context + self.state(x) + ops.segment_broadcast(time, graph.ptr, graph.num_nodes)
            for layer in self.layers:
                h = layer(h, graph)
            return self.out(h)

        return field

    def forward(self, t: Tensor, x: Tensor, graph: GraphBatch) -> Tensor:
        return self.bind(graph)(t, x)

    def _bond_counts(self, graph: GraphBatch) -> Tensor:
        """[N, types * 5] one-hot number of bonds of each type."""
        if graph.edge_attr is None:
            raise ValueError("NeighbourhoodField: graph.edge_attr must hold the bond type of each edge")
        cell = graph.target.long() * self.edge_types + graph.edge_attr.long()
        counts = torch.bincount(cell, minlength=graph.num_nodes * self.edge_types).clamp(max=_MOST_BONDS)
        one_hot = torch.nn.functional.one_hot(counts, _MOST_BONDS + 1).to(self.out.weight.dtype)
        return one_hot.view(graph.num_nodes, self.edge_types * (_MOST_BONDS + 1))
