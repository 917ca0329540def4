"""The two layers fields are made of; both give a node the same bits in any batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.graph import GraphBatch


class Linear(nn.Module):
    """``x @ weight + bias`` through the engine. The weight is stored [in, out], as the kernel reads it."""

    def __init__(self, inner: int, outer: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(inner, 1))
        self.weight = nn.Parameter(torch.empty(inner, outer).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outer)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class MessageLayer(nn.Module):
    """One round of message passing: ``h + act(W_h h + W_m sum over j of act(W_t h_i + W_s h_j + bond_ij) + b)``.

    The products run over nodes; the edges see element-wise work only (design: project, then gather).
    """

    def __init__(self, hidden: int, edge_types: int) -> None:
        super().__init__()
        self.as_target = Linear(hidden, hidden)
        self.as_source = Linear(hidden, hidden, bias=False)
        self.bond = nn.Parameter(torch.randn(edge_types, hidden) * 0.5)
        self.own = Linear(hidden, hidden)
        self.received = Linear(hidden, hidden, bias=False)

    def forward(self, h: Tensor, graph: GraphBatch) -> Tensor:
        messages = ops.message_sum(self.as_target(h), self.as_source(h), self.bond, graph)
        return ops.node_update(h, self.own(h), self.received(messages))
