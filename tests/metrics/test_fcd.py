"""The Fréchet distance by hand, and what is said where the network is not installed."""

import numpy as np
import pytest

from graphgen.errors import GraphgenError
from graphgen.metrics import fcd
from graphgen.metrics.fcd import Gaussian, frechet, guacamol_score


def test_frechet_of_diagonal_covariances():
    a = Gaussian(np.array([0.0, 1.0]), np.diag([4.0, 1.0]), 10)
    b = Gaussian(np.array([3.0, 1.0]), np.diag([1.0, 9.0]), 10)
    assert frechet(a, b) == pytest.approx(3**2 + (2 - 1) ** 2 + (1 - 3) ** 2)
    assert frechet(a, a) == pytest.approx(0, abs=1e-12)


def test_frechet_does_not_depend_on_the_basis_and_survives_a_singular_covariance():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(6, 8)), generator.normal(size=(50, 8))
    turn = np.linalg.qr(generator.normal(size=(8, 8)))[0]

    def gaussian(samples):
        return Gaussian(samples.mean(0), np.cov(samples, rowvar=False), len(samples))

    expected = frechet(gaussian(x), gaussian(y))
    assert frechet(gaussian(x @ turn), gaussian(y @ turn)) == pytest.approx(expected)
    assert frechet(gaussian(y), gaussian(x)) == pytest.approx(expected)


def test_the_score_is_not_the_distance():
    assert guacamol_score(0) == 1
    assert guacamol_score(5) == pytest.approx(np.exp(-1))


def test_says_what_to_install(monkeypatch):
    monkeypatch.setattr(fcd, "find_spec", lambda name: None)
    with pytest.raises(GraphgenError, match=r"pip install 'graphgen\[fcd\]'"):
        fcd.chemnet(["C", "CC"])


@pytest.mark.skipif(fcd.missing() is not None, reason="needs the extra fcd")
def test_chemnet():
    a, b = fcd.chemnet(["CCO", "CCN", "CCC"]), fcd.chemnet(["c1ccccc1", "CC(=O)O", "C#N"])
    assert a.n == 3 and a.mean.shape == (512,)
    assert frechet(a, b) > 1 and frechet(a, a) == pytest.approx(0, abs=1e-6)
