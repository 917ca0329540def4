"""A part that molecules are to contain: which of a batch's tokens it decides. Needs no RDKit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.ops.pairs import Pairs


class Decided(NamedTuple):
    """The atoms of a scaffold, which are the first k of every molecule, and all pairs of them, bonded or not.

    Attributes:
        atom_at, pair_at: [B k] and [B k (k - 1) / 2] int64, places among the atoms and the pairs of the batch.
        atoms, pairs: their labels.
    """

    atom_at: Tensor
    atoms: Tensor
    pair_at: Tensor
    pairs: Tensor

    @classmethod
    def by(cls, scaffold: MoleculeGraph, ptr: Tensor, vocabulary: Vocabulary) -> Decided:
        """Those of a batch of molecules of at least k atoms each, bounded by ptr [B + 1].

        Raises:
            GraphgenError: an atom type that the vocabulary lacks.
        """
        lacking = {atom for atom in scaffold.atoms if atom not in vocabulary.atoms}
        if lacking:
            unknown = ", ".join(Vocabulary(tuple(sorted(lacking))).names)
            known = ", ".join(vocabulary.names)
            raise GraphgenError(f"scaffold: has atoms {unknown}, which the model does not know; it knows {known}")
        k, device, pairs = len(scaffold.atoms), ptr.device, Pairs(ptr)
        kinds = torch.zeros(k, k, dtype=torch.int64)
        for u, v, kind in scaffold.bonds:
            kinds[min(u, v), max(u, v)] = kind + 1
        begin = pairs.ptr[:-1].unsqueeze(1)
        within = (pairs.second < pairs.ptr[pairs.of_pair] + k).nonzero().flatten()  # first < second
        first = pairs.ptr[pairs.of_pair[within]]
        labels = torch.tensor([vocabulary.index(*atom) for atom in scaffold.atoms], dtype=torch.int64, device=device)
        return cls(
            (begin + torch.arange(k, device=device)).flatten(),
            labels.repeat(len(begin)),
            within,
            kinds.to(device)[pairs.first[within] - first, pairs.second[within] - first],
        )

    def hold(self, atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """States [N] and [T] with the decided ones in their places."""
        return atoms.index_copy(0, self.atom_at, self.atoms), pairs.index_copy(0, self.pair_at, self.pairs)
