"""Discrete flow matching: labels that jump from noise to data in continuous time.

A token of S states goes along the mixture path

    p_t(x | x1) = t [x = x1] + (1 - t) noise(x),

whatever the noise law: that of the data, a uniform one, or a mask state alone. Given x1, jumps at the rate

    R(x -> j | x1) = [j = x1] / (1 - t) + eta p_t(j | x1),    j /= x,

keep to that path. The first term drives: jumps from everywhere to x1 at the rate 1 / (1 - t) change p_t(j) by
([j = x1] - p_t(j)) / (1 - t) = [j = x1] - noise(j), which is its derivative (Gat et al. 2024, for mixtures of any
source). The second changes nothing, since p_t(x) p_t(j) is symmetric: detailed balance (Campbell et al. 2024). The
generator of the data is the mean of R over x1 given the whole state, for which each token needs its own x1 only:

    R(x -> j) = posterior(j) (1 / (1 - t) + eta t) + eta (1 - t) noise(j).

Another rate that keeps to the path, that of DeFoG (Qin et al. 2024), equals this one for a mask and eta = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_LEFT = 8.0

CLOCKS: dict[str, Callable[[float], float]] = {
    "identity": lambda u: u,
    "polydec": lambda u: u * (2 - u),
    "geometric": lambda u: math.expm1(-_LEFT * u) / math.expm1(-_LEFT),
}
"""From the share of steps done to t. polydec's steps shrink towards the data (Qin et al. 2024), and yet its last ones
renew more and more tokens at once, which then do not see each other: all in the last, 3/4 in the one before. In
geometric steps 1 - t falls by the same factor, down to e^-8: a small share is renewed in each but the last. That more
molecules are valid by it is measured, not derived. With an exact posterior and few steps polydec is nearer to the law
of the data, for its first steps are the shorter ones.
"""

# Noise that never is x leaves no doubt that x is the data's: exp(-69) for that, small enough and yet finite.
_NEVER = 1e-30


def draw(law: Tensor, uniform: Tensor) -> Tensor:
    """[M] int64: one state each from laws [M, S] that need not sum to 1, never one of probability 0.

    Args:
        uniform: [M] in [0, 1), multiples of 2^-24.
    """
    # Scaled by the sum, rounding included, the number stays below it: (1 - 2^-24) s < s in float32 too.
    below = law.cumsum(-1)
    return (uniform.unsqueeze(-1) * below[..., -1:] >= below[..., :-1]).sum(-1)


def corrupt(data: Tensor, t: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
    """[M] int64 states at time t [M] of the path that ends at ``data`` [M]; ``uniform`` [M, 2] in [0, 1)."""
    return torch.where(uniform[:, 0] < t, data, draw(noise.expand(len(data), -1), uniform[:, 1]))


def evidence(state: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """[M] log p_t(x | x1 = x) - log p_t(x | x1 /= x): by Bayes' rule what x itself adds to its own posterior logit."""
    return torch.log1p(t / ((1 - t) * noise[state].clamp(min=_NEVER)))


def rates(state: Tensor, posterior: Tensor, t: float, noise: Tensor, eta: float = 0.0) -> Tensor:
    """[M, S] rate at which states [M] jump to every other, minus its sum at the state itself.

    Args:
        posterior: [M, S] probability of each state to be the data's, given all that is known at time t; without the
            last column where that is a mask.
        noise: [S] the noise law.
        eta: of jumps in detailed balance.
    """
    jumps = _over_states(posterior, noise) * (1 / (1 - t) + eta * t) + noise * (eta * (1 - t))
    jumps = jumps.scatter(1, state.unsqueeze(1), 0.0)
    return jumps.scatter(1, state.unsqueeze(1), -jumps.sum(1, keepdim=True))


def transition(state: Tensor, posterior: Tensor, t: float, end: float, noise: Tensor, eta: float = 0.0) -> Tensor:
    """[M, S] law of the states at time ``end`` after a step from time t; to first order ``1 + (end - t) * rates``.

    First a jump to a draw of x1 with probability (end - t) / (1 - t), then with 1 - exp(-eta (end - t)) one to a draw
    of p_end(. | x1): given x1, both are exact for steps of any length, so no probability leaves [0, 1].

    Args: as :func:`rates`, at time t.
    """
    driven = (end - t) / (1 - t)
    renewed = -math.expm1(-eta * (end - t))
    law = _over_states(posterior, noise) * ((1 - renewed) * driven + renewed * end) + noise * (renewed * (1 - end))
    stay = torch.full_like(law[:, :1], (1 - renewed) * (1 - driven))
    return law.scatter_add(1, state.unsqueeze(1), stay)


def surprise(state: Tensor, data: Tensor, logits: Tensor) -> Tensor:
    """[M] (1 - t) times the divergence per unit of t, in nats, of the model's jumps from those that lead to ``data``.

    Jumps of rates R' in the place of R are diverged from at sum over j of ``R log(R / R') - R + R'``. To the data and
    nowhere else R is 1 / (1 - t); R' is posterior(j) / (1 - t). Where x is not the data's that is

        (-log posterior(data) - posterior(x)) / (1 - t),

    for a mask the cross-entropy alone; where it is, ``(1 - posterior(x)) / (1 - t)``, the rate of leaving. Integrated
    over t along the path to the data, it bounds minus the log-probability of being led there (the bound of
    Campbell et al. 2022, in the time of generation). A mask's past tells no more than its present, so that with the
    exact posterior the mean over data is its entropy; with other noise a jump says more than the state does, and the
    bound keeps a distance.

    Args:
        state, data: [M] int64.
        logits: [M, types] of the posterior, that which the state itself says included.
    """
    own = (state.unsqueeze(1) == torch.arange(logits.shape[1], device=state.device)).to(logits.dtype)
    posterior = logits.softmax(1)
    missing = -logits.log_softmax(1).gather(1, data.unsqueeze(1)).squeeze(1) - (posterior * own).sum(1)
    # Not one minus its own, which near the end is nothing but rounding.
    return torch.where(state == data, (posterior * (1 - own)).sum(1), missing)


def _over_states(posterior: Tensor, noise: Tensor) -> Tensor:
    return torch.nn.functional.pad(posterior, (0, len(noise) - posterior.shape[1]))
