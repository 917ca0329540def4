"""Tanimoto similarity between many fingerprints, as matrix products of their bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROWS = 2_048
# bfloat16 holds every integer up to here.
_EXACT = 256


def nearest(fingerprints: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Similarity of each fingerprint to the nearest of a reference.

    Args:
        fingerprints: [M, K] uint8, packed bits.
        reference: [R, K] uint8.

    Returns:
        [M] float64, between 0 and 1.

    Raises:
        ValueError: the reference is empty.
    """
    if not len(reference):
        raise ValueError("there are no reference fingerprints")
    best = torch.zeros(len(fingerprints))
    for rows, _, similarity in _blocks(fingerprints, reference):
        torch.maximum(best[rows], similarity.amax(1), out=best[rows])
    return best.double().numpy()


def power_means(fingerprints: NDArray[np.uint8], powers: Sequence[int]) -> NDArray[np.float64]:
    """Mean over y of T(x, y)^p within one set, x itself included.

    Args:
        fingerprints: [M, K] uint8, packed bits.
        powers: P values of p.

    Returns:
        [P, M] float64.
    """
    total = torch.zeros(len(powers), len(fingerprints), dtype=torch.float64)
    for rows, _, similarity in _blocks(fingerprints, fingerprints):
        for i, power in enumerate(powers):
            raised = similarity if power == 1 else similarity**power
            # A row of a block has too few terms for single precision to lose any digit that is shown.
            total[i, rows] += raised.sum(1).double()
    return (total / max(len(fingerprints), 1)).numpy()


def _blocks(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> Iterator[tuple[slice, slice, Tensor]]:
    left, right = _unpacked(x), _unpacked(y)
    sizes = [bits.sum(1).float() for bits in (left, right)]
    if _fast_bfloat16() and all(s.numel() and s.max() <= _EXACT for s in sizes):
        # Counts up to 256 are exact, and these products are many times faster.
        left, right = left.bfloat16(), right.bfloat16()
    else:
        left, right = left.float(), right.float()
    for i in range(0, len(x), _ROWS):
        rows = slice(i, i + _ROWS)
        for j in range(0, len(y), _ROWS):
            columns = slice(j, j + _ROWS)
            common = (left[rows] @ right[columns].T).float()
            union = sizes[0][rows, None] + sizes[1][columns]
            yield rows, columns, common.div_(union.sub_(common))


def _fast_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _unpacked(bits: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits, axis=1))
