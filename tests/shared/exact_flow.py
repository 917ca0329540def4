"""Discrete flows whose posterior is known: joint laws of a few tokens, small enough to list."""

import torch

NOISES = {
    "marginal": torch.tensor([0.6, 0.3, 0.1]),
    "uniform": torch.full((3,), 1 / 3),
    "absorbing": torch.tensor([0.0, 0.0, 0.0, 1.0]),
}


def path_law(end, t, noise):
    """[..., S] p_t(. | end) for ends [...]."""
    return t * torch.nn.functional.one_hot(end, len(noise)) + (1 - t) * noise


def exact_posteriors(outcomes, law, state, t, noises):
    """Posterior [M, types] of every token's end, given states [M, T] of all tokens at time t, or [M] times.

    Args:
        outcomes: [K, T] all there is, with probabilities law [K], or [M, K].
        noises: T noise laws.
    """
    weight, t = law.expand(len(state), -1), torch.as_tensor(t, dtype=law.dtype).view(-1, 1)
    for token, noise in enumerate(noises):
        there = state[:, token].unsqueeze(1) == outcomes[:, token]
        weight = weight * (t * there + (1 - t) * noise[state[:, token]].unsqueeze(1))
    total = weight.sum(1, keepdim=True)
    weight = weight / total.where(total > 0, torch.ones_like(total))  # what cannot be has no posterior
    ends = [torch.nn.functional.one_hot(outcomes[:, token]).to(law.dtype) for token in range(len(noises))]
    return [weight @ end for end in ends]
