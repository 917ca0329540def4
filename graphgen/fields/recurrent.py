"""Recurrent cells and the readout that is made of one; a row's bits do not depend on the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields.layers import Linear


class GRUCell(nn.Module):
    """A gated recurrent unit (Cho et al., EMNLP 2014): how much of the old state stays is learnt.

    Args:
        inner, hidden: widths of the input and of the state.
    """

    def __init__(self, inner: int, hidden: int) -> None:
        super().__init__()
        self.of_input = Linear(inner, 3 * hidden)
        self.of_state = Linear(hidden, 3 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """[N, hidden] the next states, for inputs x [N, inner] and states h [N, hidden]."""
        reset, keep, new = self.of_input(x).chunk(3, 1)
        reset_h, keep_h, new_h = self.of_state(h).chunk(3, 1)
        candidate = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
        return torch.lerp(candidate, h, torch.sigmoid(keep + keep_h))


class SetToSet(nn.Module):
    """A vector for each graph that no order of its nodes changes: attention to all nodes, several times over.

    An LSTM asks a question of each graph's nodes, gets their states back as softmax of question times state weighs
    them, and asks the next.

    Args:
        hidden: width of the states.
        questions: how many it asks.

    Source: Vinyals, Bengio and Kudlur, ICLR 2016 (Order matters), equations 3 to 7.
    """

    def __init__(self, hidden: int, questions: int = 3) -> None:
        super().__init__()
        self.hidden, self.questions = hidden, questions
        self.of_input = Linear(2 * hidden, 4 * hidden)
        self.of_state = Linear(hidden, 4 * hidden, bias=False)

    def forward(self, h: Tensor, ptr: Tensor) -> Tensor:
        """[B, 2 hidden], the last question and its answer, for states h [N, hidden] of graphs bounded by ptr."""
        graphs, rows = len(ptr) - 1, len(h)
        answer = h.new_zeros(graphs, self.hidden)
        question, memory = answer, answer
        for _ in range(self.questions):
            gates = self.of_input(torch.cat((question, answer), 1)) + self.of_state(question)
            write, forget, candidate, read = gates.chunk(4, 1)
            memory = torch.sigmoid(forget) * memory + torch.sigmoid(write) * torch.tanh(candidate)
            question = torch.sigmoid(read) * torch.tanh(memory)
            match = (h * ops.segment_broadcast(question, ptr, rows)).sum(1, keepdim=True)
            highest = ops.segment_reduce(match.detach(), ptr, "max")
            weight = (match - ops.segment_broadcast(highest, ptr, rows)).exp()
            total = ops.segment_reduce(torch.cat((weight * h, weight), 1), ptr)
            answer = total[:, :-1] / total[:, -1:].clamp(min=torch.finfo(h.dtype).tiny)
        return torch.cat((question, answer), 1)
