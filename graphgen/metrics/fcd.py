"""Fréchet ChemNet distance, Preuer et al. 2018, with the network of its authors' package (extra ``fcd``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphgen.errors import GraphgenError

DEFINITION = "Fréchet distance of ChemNet activations to the reference, duplicates kept; 0 is best, falls with n"
SCORE_DEFINITION = "GuacaMol's exp(-0.2 FCD): a score, 1 is best, not a distance"
_BATCH = 512
_INSTALL = "needs the package fcd, which holds ChemNet's weights: pip install 'graphgen[fcd]'"


class Gaussian(NamedTuple):
    """Mean [F] and covariance [F, F] of n feature vectors."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int


def missing() -> str | None:
    """Why there is no ChemNet here, or None."""
    return None if find_spec("fcd") else _INSTALL


def library() -> str:
    """Name and version of the package whose network is used."""
    return f"fcd {metadata.version('fcd')}" if find_spec("fcd") else "fcd"


def chemnet(smiles: Sequence[str], device: str = "cpu") -> Gaussian:
    """Mean and covariance of ChemNet's activations (512) over molecules, duplicates included.

    Args:
        smiles: canonical, since ChemNet reads the text itself. At least two.

    Raises:
        GraphgenError: the package is not installed, or there are fewer than two molecules.
    """
    if why := missing():
        raise GraphgenError(f"FCD {why}")
    if len(smiles) < 2:
        raise GraphgenError(f"FCD needs two molecules or more, got {len(smiles)}")
    import fcd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, on a SMILES longer than it pads to
        activations = fcd.get_predictions(
            fcd.load_ref_model(), list(smiles), batch_size=_BATCH, n_jobs=0, device=device
        )
    features = activations.astype(np.float64)
    return Gaussian(features.mean(0), np.cov(features, rowvar=False), len(features))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Fréchet (squared Wasserstein-2) distance between two normal distributions.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2).
    """
    # The singular values of A^1/2 B^1/2 are the eigenvalues sought, without the root of any rounding error.
    common = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * common)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T


def guacamol_score(distance: float) -> float:
    """GuacaMol's score exp(-0.2 FCD), 1 is best: not a distance, and not to be put beside one."""
    return float(np.exp(-0.2 * distance))
