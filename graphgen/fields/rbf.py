"""RBF + NN: the neighbourhood as a distribution of distances, which an NN reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields.layers import Linear
from graphgen.graph import GraphBatch

# Distances are taken in this many learned projections of this many numbers each, and read by this many functions.
_PROJECTIONS, _WIDTH, _FUNCTIONS = 4, 8, 16


class RBFLayer(nn.Module):
    """One round: ``h + act(W_h h + sum over b, p, k of W_bpk r_bpk + b)`` with, for bond type b and projection p,

        r_bpk[i] = sum over bonds of type b to j of exp(-gamma_k (|P_p h_i - P_p h_j| - c_k)^2).

    Nothing but these sums is known of the neighbours; projections, centers c and widths gamma are learned.
    The slides' ``sum over j of phi_k(v_i, v_j)`` with phi radial, one sum for each kind of bond.
    """

    def __init__(self, hidden: int, edge_types: int) -> None:
        super().__init__()
        self.edge_types = edge_types
        self.project = Linear(hidden, _PROJECTIONS * _WIDTH, bias=False)
        self.centers = nn.Parameter(torch.linspace(0, 4, _FUNCTIONS))
        spacing = 4 / (_FUNCTIONS - 1)
        self.log_gamma = nn.Parameter(torch.full((_FUNCTIONS,), 0.5 / spacing**2).log())
        self.own = Linear(hidden, hidden)
        self.received = Linear(_PROJECTIONS * edge_types * _FUNCTIONS, hidden, bias=False)

    def forward(self, h: Tensor, graph: GraphBatch) -> Tensor:
        nodes = h.shape[0]
        points = self.project(h).view(nodes, 1, _PROJECTIONS, _WIDTH)
        points = points.expand(nodes, self.edge_types, _PROJECTIONS, _WIDTH).reshape(-1, _WIDTH)
        # One sweep for all: every bond type and projection has nodes of its own.
        spread = graph.shared(f"bonds apart {self.edge_types}", lambda: _bonds_apart(graph, self.edge_types))
        sums = ops.rbf_neighbor_sum(points, spread, self.centers, self.log_gamma.exp())
        return ops.node_update(h, self.own(h), self.received(sums.view(nodes, -1)))


def _bonds_apart(graph: GraphBatch, edge_types: int) -> GraphBatch:
    """Node i becomes nodes (i, b, p), joined to (j, b, p) where a bond of type b joined i and j."""
    assert graph.edge_attr is not None
    copies = edge_types * _PROJECTIONS
    kind = graph.edge_attr.long().repeat_interleave(_PROJECTIONS)
    projection = torch.arange(_PROJECTIONS, device=graph.device).repeat(graph.num_edges)
    place = kind * _PROJECTIONS + projection
    source, target = (
        ends.long().repeat_interleave(_PROJECTIONS) * copies + place for ends in (graph.col, graph.target)
    )
    return GraphBatch.from_edge_index(torch.stack([source, target]), graph.num_nodes * copies)
