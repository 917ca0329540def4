"""A federation small enough to run in a second: three classes in the plane, moved for every client."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from graphgen.federated.networks import Extractor, Networks
from graphgen.federated.server import Labelled
from graphgen.federated.settings import Settings
from graphgen.federated.suites import Domain, Suite

SETTINGS = Settings(rounds=3, pretrain_steps=60, client_steps=8, server_steps=5, batch_size=32, lr=5e-3)


@dataclass(frozen=True)
class Points:
    at: torch.Tensor

    def __len__(self):
        return len(self.at)

    def batch(self, indices):
        return self.at[indices]


class PointExtractor(Extractor):
    features = 6

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 12), nn.Linear(12, 6)
        self.add_norm("first", 12)
        self.add_norm("second", 6)

    def embed(self, batch, norm):
        return batch

    def head(self, embedded, norm):
        return norm("second", self.second(norm("first", self.first(embedded)).relu()))


def points(count, seed, move=(0.0, 0.0), stretch=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    angle = labels * (2 * math.pi / 3)
    centre = 2 * torch.stack((angle.cos(), angle.sin()), 1)
    at = centre + 0.6 * torch.randn(count, 2, generator=generator)
    return Labelled(Points(stretch * at + torch.tensor(move)), labels)


MOVES = {"east": ((3.0, 0.0), 1.0), "north": ((0.0, 3.0), 1.0), "wide": ((1.0, 1.0), 3.0)}


def suite(names=tuple(MOVES)):
    domains = []
    for name in names:
        seed = 10 * (list(MOVES).index(name) + 1)
        domains.append(Domain(name, points(150, seed, *MOVES[name]), points(100, seed + 1, *MOVES[name])))
    return Suite(points(200, 0), tuple(domains), Networks(PointExtractor, 3), ("a", "b", "c"))
