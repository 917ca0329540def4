"""How far apart two samples of a number, or of a kind, are. Needs no RDKit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 20
"""Bins of a continuous property: each holds this share of the reference."""


def wasserstein(a: NDArray[np.number], b: NDArray[np.number]) -> float:
    """Wasserstein-1 distance of two samples of a number, in its unit: the area between their distributions.

    Raises:
        ValueError: a sample is empty.
    """
    if not len(a) or not len(b):
        raise ValueError("a sample is empty")
    a, b = np.sort(a), np.sort(b)
    points = np.sort(np.concatenate((a, b)))
    below = [np.searchsorted(x, points[:-1], side="right") / len(x) for x in (a, b)]
    return float(np.sum(np.abs(below[0] - below[1]) * np.diff(points)))


def total_variation(p: NDArray[np.integer], q: NDArray[np.integer]) -> float:
    """Half the summed difference of shares: the Wasserstein distance where all kinds are 1 apart.

    Args:
        p, q: [K] counts of the same kinds.

    Raises:
        ValueError: a side counts nothing.
    """
    if not p.sum() or not q.sum():
        raise ValueError("a side counts nothing")
    return float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)


def kl(reference: NDArray[np.integer], counts: NDArray[np.integer]) -> float:
    """Kullback-Leibler divergence D(reference || counts) in nats, of shares with one count added to each kind.

    Args:
        reference, counts: [K] counts of the same kinds.
    """
    p, q = reference + 1.0, counts + 1.0
    p, q = p / p.sum(), q / q.sum()
    # Rounding can leave equal shares a little below zero.
    return max(float(np.sum(p * np.log(p / q))), 0.0)


def shared_counts(reference: NDArray[np.integer], sample: NDArray[np.integer]) -> tuple[NDArray, NDArray]:
    """How often each value that occurs on either side occurs on each."""
    values, place = np.unique(np.concatenate((reference, sample)), return_inverse=True)
    first = np.bincount(place[: len(reference)], minlength=len(values))
    return first, np.bincount(place[len(reference) :], minlength=len(values))


def binned(reference: NDArray[np.floating], sample: NDArray[np.floating]) -> tuple[NDArray, NDArray]:
    """Counts of two samples in up to 20 bins of equal share in the reference, the outer ones open."""
    edges = np.unique(np.quantile(reference, np.arange(1, BINS) / BINS))
    found = (np.searchsorted(edges, x, side="right") for x in (reference, sample))
    first, second = (np.bincount(x, minlength=len(edges) + 1) for x in found)
    return first, second
