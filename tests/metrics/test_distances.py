"""Distances of samples against numbers worked out by hand."""

import math

import numpy as np
import pytest

from graphgen.metrics.distances import BINS, binned, kl, shared_counts, total_variation, wasserstein


def test_wasserstein_by_hand():
    assert wasserstein(np.array([0.0, 1.0]), np.array([5.0, 6.0])) == 5
    # Half of the mass moves by 2, a third of the other side's steps lie elsewhere.
    assert wasserstein(np.array([0, 2]), np.array([0, 0, 2])) == pytest.approx(2 * (2 / 3 - 1 / 2))
    assert wasserstein(np.array([3, 1, 2]), np.array([1, 2, 3])) == 0
    with pytest.raises(ValueError, match="empty"):
        wasserstein(np.array([]), np.array([1.0]))


def test_wasserstein_is_the_mean_gap_of_sorted_samples():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=500), generator.normal(1, 2, size=500)
    assert wasserstein(a, b) == pytest.approx(np.abs(np.sort(a) - np.sort(b)).mean())
    assert wasserstein(a, b) == pytest.approx(wasserstein(np.tile(a, 3), b))


def test_total_variation_by_hand():
    assert total_variation(np.array([1, 1]), np.array([2, 0])) == 0.5
    assert total_variation(np.array([5, 0]), np.array([0, 1])) == 1
    with pytest.raises(ValueError, match="nothing"):
        total_variation(np.array([0, 0]), np.array([1, 0]))


def test_kl_by_hand():
    # With one count added: 3, 1 of 4 and 2, 2 of 4.
    expected = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert kl(np.array([2, 0]), np.array([1, 1])) == pytest.approx(expected)
    assert kl(np.array([2, 7]), np.array([2, 7])) == 0


def test_values_of_either_side_are_counted():
    first, second = shared_counts(np.array([3, 3, 9]), np.array([4, 3]))
    assert first.tolist() == [2, 0, 1] and second.tolist() == [1, 1, 0]


def test_bins_hold_equal_shares_of_the_reference():
    reference = np.random.default_rng(0).lognormal(size=2_000)
    first, second = binned(reference, np.array([-1.0, 1e9]))
    assert len(first) == BINS and set(first.tolist()) == {2_000 // BINS}
    assert second[0] == second[-1] == 1 and second.sum() == 2
    first, _ = binned(np.zeros(5), np.ones(3))
    assert first.sum() == 5
