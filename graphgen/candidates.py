"""Several candidates for an attempt, of which one is kept: by likelihood, and by what RDKit takes for a molecule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.ops.noise import Stream

CHOICES = ("likeliest", "weighted", "first")

# A graph id has 48 bits. The first candidate has the id of its attempt, so that it is what one candidate would be.
_NEXT_CANDIDATE = 1 << 32


@dataclass(frozen=True)
class Candidates:
    """How one of several candidates is chosen.

    Attributes:
        count: candidates of an attempt, each from noise of its own.
        choose: "likeliest" keeps the one of the largest log-probability; "weighted" draws one with the candidates'
            probabilities as weights, which for many candidates samples the square of the model's law, sharper but not
            its mode; "first" keeps the first.
        reject: leave out candidates that are no molecule (a valence broken) before choosing. An attempt without any
            left is a failure.
    """

    count: int = 1
    choose: str = "likeliest"
    reject: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise GraphgenError(f"candidates must be 1 or more, not {self.count}")
        if self.choose not in CHOICES:
            raise GraphgenError(f"choose {self.choose!r}: choose one of {', '.join(CHOICES)}")

    @property
    def by_likelihood(self) -> bool:
        """Whether choosing needs the candidates' log-probabilities."""
        return self.count > 1 and self.choose != "first"

    def ids(self, attempts: Tensor) -> Tensor:
        """[M * count] what identifies the candidates of attempts [M] to the noise source, an attempt's own together."""
        return (attempts.unsqueeze(1) + torch.arange(self.count, device=attempts.device) * _NEXT_CANDIDATE).flatten()

    def pick(self, attempts: Tensor, seed: int, log_probability: Tensor | None, good: Tensor | None) -> Tensor:
        """[M] which candidate of each attempt is kept, 0 where there is none to choose from.

        Args:
            log_probability: [M * count]; None to keep the first.
            good: [M * count] bool, which may be kept; None for all.
        """
        if log_probability is None or not self.by_likelihood:
            score = -torch.arange(self.count, dtype=torch.float64).expand(len(attempts), -1)
        else:
            score = log_probability.double().view(-1, self.count)
            if self.choose == "weighted":  # Gumbel's way to draw by weights
                rows = torch.arange(len(attempts) + 1)
                uniform = ops.uniform(rows, self.count, seed, Stream.CHOICE, 0, attempts, torch.float64)
                score = score - (-(uniform + 2.0**-25).log()).log()
        if good is not None:
            score = score.masked_fill(~good.view(-1, self.count), -torch.inf)
        return score.argmax(1)
