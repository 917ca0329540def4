"""How well atom labels fit skeletons whose true labels are known. Needs no RDKit."""

from __future__ import annotations

import torch
from torch import Tensor


def label_recovery(labels: Tensor, truth: Tensor) -> float:
    """Share of atoms, over all attempts, that carry the true label of their place in the skeleton (top-1).

    Args:
        labels: [N] int64 generated labels.
        truth: [N] int64 true labels.

    Raises:
        ValueError: the shapes differ or N is 0.
    """
    if labels.shape != truth.shape or not truth.numel():
        raise ValueError(
            f"expected as many labels as true labels, at least one; got {labels.numel()} and {truth.numel()}"
        )
    return (labels == truth).double().mean().item()


def top_recovery(probability: Tensor, truth: Tensor, k: int) -> float:
    """Share of atoms whose true label is among the k likeliest of their place in the skeleton.

    Args:
        probability: [N, A] of every label at every place, given the bonds alone.
        truth: [N] int64 true labels.

    Raises:
        ValueError: the shapes differ or N is 0.
    """
    if probability.shape[:1] != truth.shape or not truth.numel():
        raise ValueError(
            f"expected as many rows of probabilities as true labels, at least one; got {len(probability)} and "
            f"{truth.numel()}"
        )
    likeliest = probability.topk(min(k, probability.shape[1]), 1).indices
    return (likeliest == truth.unsqueeze(1)).any(1).double().mean().item()


def kl_atom_types(truth: Tensor, labels: Tensor, num_types: int) -> float:
    """Kullback-Leibler divergence in nats, from the true atom-type shares to the generated ones.

    D(truth || labels) = sum_a p(a) log(p(a) / q(a)). One count is added to every type on both sides, so that
    a type never generated costs much but not infinitely much.

    Args:
        truth, labels: int64 label tensors, of any length.
        num_types: number of atom types.
    """
    p, q = (torch.bincount(x, minlength=num_types).double() + 1 for x in (truth, labels))
    p, q = p / p.sum(), q / q.sum()
    # Rounding can leave equal shares a little below zero.
    return max((p * (p / q).log()).sum().item(), 0.0)


def nats_per_atom(log_probability: Tensor, sizes: Tensor) -> tuple[float, float]:
    """Mean of -log p(true labels) per atom over molecules, and its standard error.

    Atoms of one molecule are not independent, so the error is that of a ratio of sums over molecules:
    sqrt(M / (M - 1) * sum_m (L_m - mean * n_m)^2) / sum_m n_m. With one molecule it is NaN.

    Args:
        log_probability: [M] log-probability of each molecule's true labels, nats.
        sizes: [M] its number of atoms.

    Raises:
        ValueError: there are no atoms.
    """
    if not int(sizes.sum()):
        raise ValueError("no atoms to average over")
    loss, sizes = -log_probability.double(), sizes.double()
    molecules = len(sizes)
    mean = loss.sum() / sizes.sum()
    if molecules == 1:
        return mean.item(), float("nan")
    spread = (loss - mean * sizes).square().sum() * molecules / (molecules - 1)
    return mean.item(), (spread.sqrt() / sizes.sum()).item()
