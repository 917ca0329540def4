"""Federations to learn on: a labelled source, and clients whose data is shifted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphgen import ops
from graphgen.federated.networks import Networks
from graphgen.federated.server import Labelled
from graphgen.ops.noise import Stream


@dataclass(frozen=True)
class Domain:
    """A client's data.

    Attributes:
        learning: what the client adapts to. Its labels are for the comparisons that may see them; no client does.
        test: what accuracy is measured on.
    """

    name: str
    learning: Labelled
    test: Labelled


@dataclass(frozen=True)
class Suite:
    """
    Attributes:
        classes: their names.
    """

    source: Labelled
    clients: tuple[Domain, ...]
    networks: Networks
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """Grey images [N, side, side], 0 to 1."""

    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]


def shuffled(count: int, seed: int, which: int = 0) -> Tensor:
    """[count] int64, a random order that is a function of the arguments."""
    keys = ops.uniform(torch.tensor([0, count]), 1, seed, Stream.ORDER, which).squeeze(1)
    return keys.argsort(stable=True)


def first_so_many(order: Tensor, *counts: int) -> list[Tensor]:
    """Disjoint pieces of these sizes; where there is too little for all, each gets its share."""
    share = min(1.0, len(order) / sum(counts))
    ends = torch.tensor([0, *counts]).cumsum(0) * share
    return [order[a:b] for a, b in zip(ends[:-1].long().tolist(), ends[1:].long().tolist(), strict=True)]
