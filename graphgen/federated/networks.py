"""Feature extractors G and classifiers F: what the data must offer, and the networks for images and for molecules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields.layers import Linear, MessageLayer
from graphgen.molecules.encoded import MoleculeBatch

# A domain's statistics are those of so many examples, so that they fit into memory at once.
_ENOUGH = 4096

Statistics = Mapping[str, Tensor]
"""By layer: [2, F], mean and variance of its F features over a domain."""


class Examples(Protocol):
    """What a client or the server holds; nothing here looks into a batch but its extractor."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Any:
        """The examples at indices [B]."""


class Extractor(nn.Module, ABC):
    """G: a batch to features [B, F], whose layers are standardised by the statistics of a domain.

    Given none, a layer takes the batch's own, as training does (batch normalisation); statistics of each domain make
    it adaptive batch normalisation (Li et al. 2016).
    """

    features: int

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ParameterDict()
        self.shifts = nn.ParameterDict()

    @abstractmethod
    def embed(self, batch: Any, norm: _Norm) -> Tensor:
        """[B, H]: where two examples can be mixed."""

    @abstractmethod
    def head(self, embedded: Tensor, norm: _Norm) -> Tensor:
        """[B, H] -> [B, F]"""

    def add_norm(self, layer: str, width: int, shift: bool = True) -> None:
        self.scales[layer] = nn.Parameter(torch.ones(width))
        if shift:
            self.shifts[layer] = nn.Parameter(torch.zeros(width))

    def forward(self, batch: Any, statistics: Statistics | None = None) -> Tensor:
        norm = _Norm(self, statistics)
        return self.head(self.embed(batch, norm), norm)

    def mixed(self, batch: Any, other: Any, statistics: Statistics | None = None) -> Tensor:
        """[B, F] features of examples halfway between those of two batches."""
        norm = _Norm(self, statistics)
        return self.head((self.embed(batch, norm) + self.embed(other, norm)) / 2, norm)

    @torch.no_grad()
    def statistics(self, examples: Examples) -> dict[str, Tensor]:
        """Those of (the first 4,096 of) a domain's examples."""
        norm = _Norm(self, None)
        self.head(self.embed(examples.batch(torch.arange(min(len(examples), _ENOUGH))), norm), norm)
        return norm.seen


class _Norm:
    """One pass through an extractor: standardises each layer, and keeps what by."""

    def __init__(self, extractor: Extractor, statistics: Statistics | None) -> None:
        self.extractor, self.statistics, self.seen = extractor, statistics, dict[str, Tensor]()

    def __call__(self, layer: str, x: Tensor) -> Tensor:
        """[N, F] -> [N, F]"""
        if self.statistics is None:
            mean, variance = x.mean(0), x.var(0, correction=0)
            self.seen[layer] = torch.stack((mean, variance)).detach()
        else:
            mean, variance = self.statistics[layer]
        scaled = (x - mean) * (self.extractor.scales[layer] * (variance + 1e-5).rsqrt())
        return scaled + self.extractor.shifts[layer] if layer in self.extractor.shifts else scaled


class ImageMLP(Extractor):
    """Two layers on the pixels of images [B, side, side]; images mix pixel by pixel.

    The first is rectified by its absolute value (Jarrett et al., ICCV 2009), without a shift before it: standardised by
    their own domain, an image and its negative then have the same features.
    """

    def __init__(self, side: int, hidden: int = 128, features: int = 64) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = nn.Linear(side * side, hidden), nn.Linear(hidden, features)
        self.add_norm("first", hidden, shift=False)
        self.add_norm("second", features)

    def embed(self, batch: Tensor, norm: _Norm) -> Tensor:
        return batch.flatten(1)

    def head(self, embedded: Tensor, norm: _Norm) -> Tensor:
        return norm("second", self.second(norm("first", self.first(embedded)).abs()))


class ImageConv(Extractor):
    """Two convolutions, each followed by pooling to half the side, and a layer; rectified and mixed as in ImageMLP.

    Padding is black, so an image and its negative differ along the border.
    """

    def __init__(self, side: int, channels: int = 16, features: int = 64) -> None:
        super().__init__()
        self.features, self.side = features, side
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.third = nn.Linear(2 * channels * (side // 4) ** 2, features)
        for layer, width in (("first", channels), ("second", 2 * channels), ("third", features)):
            self.add_norm(layer, width, shift=layer != "first")

    def embed(self, batch: Tensor, norm: _Norm) -> Tensor:
        return batch.flatten(1)

    def head(self, embedded: Tensor, norm: _Norm) -> Tensor:
        x = embedded.view(-1, 1, self.side, self.side)
        for layer, convolution, rectified in (("first", self.first, torch.abs), ("second", self.second, torch.relu)):
            x = convolution(x).movedim(1, 3)
            x = norm(layer, x.reshape(-1, x.shape[3])).view(x.shape).movedim(3, 1)
            x = nn.functional.max_pool2d(rectified(x), 2)
        return norm("third", self.third(x.flatten(1)))


class GraphEncoder(Extractor):
    """Rounds of messages on the bonds of molecules, summed over atoms; molecules mix as halves of both."""

    def __init__(self, atom_types: int, edge_types: int = 3, hidden: int = 64, layers: int = 3, features: int = 64):
        super().__init__()
        self.features = features
        self.atoms = nn.Parameter(torch.randn(atom_types, hidden) * 0.5)
        self.layers = nn.ModuleList(MessageLayer(hidden, edge_types) for _ in range(layers))
        self.first, self.second = Linear(hidden, hidden), Linear(hidden, features)
        for layer, width in (("atoms", hidden), ("first", hidden), ("second", features)):
            self.add_norm(layer, width)

    def embed(self, batch: MoleculeBatch, norm: _Norm) -> Tensor:
        h = self.atoms[batch.atoms]
        for layer in self.layers:
            h = layer(h, batch.graph)
        return ops.segment_reduce(h, batch.graph.ptr, "sum")

    def head(self, embedded: Tensor, norm: _Norm) -> Tensor:
        return norm("second", self.second(norm("first", self.first(norm("atoms", embedded))).relu()))


class Classifier(nn.Module):
    """F: features [B, F] to logits [B, C]."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, features), nn.Linear(features, classes)

    def forward(self, z: Tensor) -> Tensor:
        return self.second(self.first(z.relu()).relu())


@dataclass(frozen=True)
class Networks:
    """What server and clients have agreed on: how to make G, and how many classes there are."""

    make_extractor: Callable[[], Extractor]
    classes: int

    def extractor(self, weights: Mapping[str, Tensor]) -> Extractor:
        return _frozen(self.make_extractor(), weights)

    def classifier(self, weights: Mapping[str, Tensor]) -> Classifier:
        features = weights["first.weight"].shape[1]
        return _frozen(Classifier(features, self.classes), weights)

    def fresh(self, seed: int) -> tuple[Extractor, Classifier]:
        """Untrained G and F_g, a function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            extractor = self.make_extractor()
            return extractor, Classifier(extractor.features, self.classes)


def _frozen(module: Any, weights: Mapping[str, Tensor]) -> Any:
    module.load_state_dict(dict(weights))
    return module.requires_grad_(False)
