"""Gaussian mixtures of features: what a server and a client tell each other about their data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Below this a component would be a point; features are standardised, so this is a tenth of their spread.
_LEAST_VARIANCE = 1e-2


@dataclass(frozen=True)
class Mixture:
    """K Gaussians with diagonal covariance in F dimensions, in numbers that may be anything finite.

    Attributes:
        log_weights: [K], up to a constant.
        means: [K, F].
        log_variances: [K, F].
    """

    log_weights: Tensor
    means: Tensor
    log_variances: Tensor

    @classmethod
    def of_classes(cls, z: Tensor, labels: Tensor, classes: int) -> Mixture:
        """One component a class: the maximum likelihood fit to features [N, F] whose class [N] is known.

        A class without examples gets the mean and variance of all, and the weight of half an example.
        """
        member = torch.nn.functional.one_hot(labels, classes).to(z.dtype)
        return _fit(z, member, cls(*_everything(z, classes)))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Mixture:
        return cls(tensors["log_weights"], tensors["means"], tensors["log_variances"])

    def tensors(self) -> dict[str, Tensor]:
        return {"log_weights": self.log_weights, "means": self.means, "log_variances": self.log_variances}

    def log_joint(self, z: Tensor) -> Tensor:
        """[N, K] log density of features [N, F] and component."""
        precision = (-self.log_variances).exp()
        # Expanded, so that no [N, K, F] is stored.
        square = z.square() @ precision.T - 2 * z @ (self.means * precision).T + (self.means**2 * precision).sum(1)
        constant = self.log_variances.sum(1) + z.shape[1] * math.log(2 * math.pi)
        return self.log_weights.log_softmax(0) - 0.5 * (square + constant)

    def log_density(self, z: Tensor) -> Tensor:
        """[N]"""
        return self.log_joint(z).logsumexp(1)

    def posterior(self, z: Tensor) -> Tensor:
        """[N, K] probability of each component."""
        return self.log_joint(z).softmax(1)

    def moved(self, z: Tensor, steps: int) -> Mixture:
        """The mixture after steps of expectation-maximisation on features [N, F]; it keeps its order of components.

        A component that nearly all examples have left stays where it was.
        """
        mixture = self
        for _ in range(steps):
            mixture = _fit(z, mixture.posterior(z), mixture)
        return mixture


def _everything(z: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    variance = z.var(0, correction=0).clamp(min=_LEAST_VARIANCE).log()
    return z.new_zeros(components), z.mean(0).expand(components, -1), variance.expand(components, -1)


def _fit(z: Tensor, member: Tensor, before: Mixture) -> Mixture:
    """The M step; components of less than one example keep their place from before."""
    count = member.sum(0)
    there = (count >= 1).unsqueeze(1)
    total = count.clamp(min=1).unsqueeze(1)
    means = (member.T @ z) / total
    variances = ((member.T @ z.square()) / total - means**2).clamp(min=_LEAST_VARIANCE)
    return Mixture(
        count.clamp(min=0.5).log(),
        torch.where(there, means, before.means),
        torch.where(there, variances.log(), before.log_variances),
    )


def divergence(p: Mixture, q: Mixture) -> float:
    """How far two mixtures are apart, in nats: the sum of both Kullback-Leibler divergences.

    By the variational approximation of Hershey and Olsen (ICASSP 2007), equation 20: exact for single Gaussians, 0 for
    equal mixtures.
    """
    return float(_towards(p, q) + _towards(q, p))


def _towards(p: Mixture, q: Mixture) -> Tensor:
    log_p, log_q = p.log_weights.log_softmax(0), q.log_weights.log_softmax(0)
    own = (log_p - _between(p, p)).logsumexp(1)
    other = (log_q - _between(p, q)).logsumexp(1)
    return (log_p.exp() * (own - other)).sum()


def _between(p: Mixture, q: Mixture) -> Tensor:
    """[K, L] Kullback-Leibler divergences of the components."""
    precision = (-q.log_variances).exp()
    apart = (p.means.unsqueeze(1) - q.means).square() * precision
    ratio = p.log_variances.unsqueeze(1) - q.log_variances
    return 0.5 * (ratio.exp() - 1 - ratio + apart).sum(2)
