"""GRAND: attention as diffusion over the bonds, and a node-wise term so that the flow can expand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields.layers import Linear
from graphgen.graph import GraphBatch

_HEADS = 4


def diffuse(h: Tensor, attention: Tensor, graph: GraphBatch) -> Tensor:
    """``(A - 1) h``: every node moves towards the mean of its neighbours.

    Chamberlain et al., GRAND (2021), equation 4. Linear in h: its divergence is the sum of A's self-loops minus the
    number of nodes with an edge, times the features of a node.

    Args:
        h: [N, H, D], H heads.
        attention: [E, H] in the order of ``graph.col``, adding up to 1 over the edges that enter a node.

    Returns:
        [N, H, D]; 0 where no edge enters.
    """
    moved = ops.neighbor_reduce(h, graph, attention)
    joined = graph.shared("joined", lambda: (graph.degree > 0).view(-1, 1, 1))
    return moved - h * joined.to(h.dtype)


class DiffusionLayer(nn.Module):
    """One round: ``h + s (A(h) - 1) h + act(W_h h + b)``.

    A(h) is attention over an atom's bonds, by head, ``softmax_j(<W_q h_i, W_k h_j> / sqrt(D) + bond_ij)``; s, one
    number per feature, is learned.
    """

    def __init__(self, hidden: int, edge_types: int) -> None:
        super().__init__()
        if hidden % _HEADS:
            raise ValueError(f"DiffusionLayer: hidden ({hidden}) must be a multiple of its {_HEADS} heads")
        self.query = Linear(hidden, hidden)
        self.key = Linear(hidden, hidden, bias=False)
        self.bond = nn.Parameter(torch.randn(edge_types, _HEADS))
        self.speed = nn.Parameter(torch.full((hidden,), 0.5))
        self.own = Linear(hidden, hidden)

    def forward(self, h: Tensor, graph: GraphBatch) -> Tensor:
        assert graph.edge_attr is not None, "the field has asked for bond types"
        heads = (h.shape[0], _HEADS, h.shape[1] // _HEADS)
        logits = ops.edge_dot(self.query(h).view(heads), self.key(h).view(heads), graph) / math.sqrt(heads[2])
        attention = ops.edge_softmax(logits + ops.gather(self.bond, graph.edge_attr), graph)
        moved = diffuse(h.view(heads), attention, graph).view(h.shape)
        return h + self.speed * moved + ops.activation(self.own(h))
