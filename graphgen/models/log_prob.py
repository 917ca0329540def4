"""What a model's ``log_prob`` gives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.graph import GraphBatch


class LogProb(NamedTuple):
    """Of B graphs: a lower bound on the log-probability of the labels.

    Attributes:
        value, stderr: [B] nats; the standard error is that of the draws, NaN for one.
        atoms: [B] how many each graph has, to state the value per atom.
        evaluations: of the field, in all draws; of an adaptive solve, as many as its slowest graph took.
    """

    value: Tensor
    stderr: Tensor
    atoms: Tensor
    evaluations: int = 0

    @classmethod
    def of_draws(cls, values: list[Tensor], graph: GraphBatch, evaluations: int) -> LogProb:
        """The mean over draws, [B] each."""
        draws = torch.stack(values)
        stderr = draws.std(0) / len(values) ** 0.5 if len(values) > 1 else torch.full_like(draws[0], torch.nan)
        return cls(draws.mean(0), stderr.detach(), graph.ptr.diff(), evaluations)
