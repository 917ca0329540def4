"""The three diffusions of 'Score-based generative modeling through SDEs' (Song et al., ICLR 2021), section 3.4.

Each is dx = drift(t) x dt + diffusion(t) dw for t in [0, 1], with x(t) given x(0) normal of mean mean(t) x(0) and
standard deviation std(t). Times are numbers or tensors, which are computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PerGraph = float | Tensor


def wide(number: PerGraph) -> PerGraph:
    """In float64, as Python's own numbers are."""
    return number.double() if isinstance(number, Tensor) else number


def exp(number: PerGraph) -> PerGraph:
    return number.exp() if isinstance(number, Tensor) else math.exp(number)


def root(number: PerGraph) -> PerGraph:
    return number.sqrt() if isinstance(number, Tensor) else math.sqrt(number)


@dataclass(frozen=True)
class VP:
    """Variance preserving: drift -beta(t) / 2, diffusion sqrt(beta(t)), beta linear; the limit of DDPM's chain."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def beta(self, t: PerGraph) -> PerGraph:
        return self.beta_min + (self.beta_max - self.beta_min) * wide(t)

    def drift(self, t: PerGraph) -> PerGraph:
        return -0.5 * self.beta(t)

    def diffusion(self, t: PerGraph) -> PerGraph:
        return root(self.beta(t))

    def mean(self, t: PerGraph) -> PerGraph:
        t = wide(t)
        return exp(-0.25 * (self.beta_max - self.beta_min) * t * t - 0.5 * self.beta_min * t)

    def std(self, t: PerGraph) -> PerGraph:
        return root(1.0 - self.mean(t) ** 2)


@dataclass(frozen=True)
class SubVP(VP):
    """VP's drift with less noise: variance (1 - mean(t)^2)^2, never more than VP's."""

    def diffusion(self, t: PerGraph) -> PerGraph:
        return root(self.beta(t) * (1.0 - self.mean(t) ** 4))

    def std(self, t: PerGraph) -> PerGraph:
        return 1.0 - self.mean(t) ** 2


@dataclass(frozen=True)
class VE:
    """Variance exploding: no drift, std sigma(t) = sigma_min (sigma_max / sigma_min)^t; the limit of NCSN's levels."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def sigma(self, t: PerGraph) -> PerGraph:
        return self.sigma_min * exp(math.log(self.sigma_max / self.sigma_min) * wide(t))

    def drift(self, t: PerGraph) -> PerGraph:
        return torch.zeros_like(t, dtype=torch.float64) if isinstance(t, Tensor) else 0.0

    def diffusion(self, t: PerGraph) -> PerGraph:
        return self.sigma(t) * math.sqrt(2.0 * math.log(self.sigma_max / self.sigma_min))

    def mean(self, t: PerGraph) -> PerGraph:
        return torch.ones_like(t, dtype=torch.float64) if isinstance(t, Tensor) else 1.0

    def std(self, t: PerGraph) -> PerGraph:
        return self.sigma(t)


SDE = VP | VE
