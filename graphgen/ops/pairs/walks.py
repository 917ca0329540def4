"""How molecules' atoms are connected, as numbers of walks."""

from __future__ import annotations

from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.pairs._function import KernelOp, Values
from graphgen.ops.pairs.layout import Pairs
from graphgen.ops.reference import pairs as reference


def _walk(bonded: Tensor, pairs: Pairs, length: int) -> Values:
    returns, walks = bonded.new_empty(len(pairs.of_atom), length), bonded.new_empty(len(bonded), length)
    parts = map(_native.address, (bonded, returns, walks))
    numbers = *pairs.addresses, pairs.molecules, length, _native.DTYPES[bonded.dtype]
    _native.call(_C.pair_walks, bonded, *parts, *numbers)
    return returns, walks


_pair_walks = KernelOp(reference.pair_walks, _walk, None, tensors=1)


def pair_walks(bonded: Tensor, pairs: Pairs, length: int) -> tuple[Tensor, Tensor]:
    """Walks of 1 to ``length`` steps on molecules' bonds, each weighted by 1 / the root of the degrees it leaves.

    With S_ij = bonded / sqrt(d_i d_j), where d_i is the sum of an atom's ``bonded`` and at least 1: the powers of S. On
    certain bonds (S^k)_ii is the probability that a random walk of k steps comes back.

    Args:
        bonded: [T] float32, float64 or bfloat16, how surely each pair is bonded, 0 to 1.
        pairs: which atoms they are.

    Returns:
        [N, length] (S^k)_ii of atoms and [T, length] (S^k)_ij of pairs, for k = 1 ... length.

    Raises:
        ValueError: another number of pairs. IndexError: a molecule of more than 255 atoms on the CPU.

    Source: relative random walk probabilities, Ma et al., ICML 2023 (GRIT), here with a symmetric step.
    """
    if bonded.shape != (len(pairs.first),):
        raise ValueError(
            f"pair_walks: expected a number for each of {len(pairs.first)} pairs, got {list(bonded.shape)}"
        )
    returns, walks = _pair_walks(bonded, pairs, length)
    return returns, walks
