"""The losses of DualAdapt, and those of maximum classifier discrepancy that it builds on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def discrepancy(p: Tensor, q: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over examples of the L1 distance of two classifiers' probabilities [N, C], 0 to 2.

    Saito et al., CVPR 2018, equation 8, without its 1/C; Yao et al., WACV 2022, section 3.

    Args:
        weights: [N], of mean 1; None for all alike.
    """
    apart = (p - q).abs().sum(1)
    return (apart if weights is None else apart * weights).mean()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over examples of weights [N] times the cross-entropy of logits [N, C], in nats."""
    return (weights * cross_entropy(logits, labels, reduction="none")).mean()


def density_weights(log_density: Tensor, features: int) -> Tensor:
    """[N] weights of mean 1, proportional to densities [N] to the power 1 / F.

    Densities of F features differ by factors of e^F, so that without the power one example would have all the weight.
    """
    return (log_density / features).softmax(0) * len(log_density)


def posterior_weights(posterior: Tensor, labels: Tensor) -> Tensor:
    """[N] weights of mean 1, proportional to the posterior [N, C] of each example's label [N]."""
    chance = posterior.gather(1, labels.unsqueeze(1)).squeeze(1)
    return chance / chance.mean().clamp(min=torch.finfo(chance.dtype).tiny)
