"""Molecules as complete graphs: a label for every atom and one for every pair of atoms. Needs no RDKit."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import BOND_TYPES, MoleculeGraph, Vocabulary
from graphgen.ops.pairs import Pairs

PAIR_TYPES = ("none", *BOND_TYPES)
"""Names of a pair's labels; a label is the order of the bond, 0 for none."""


class CompleteGraphs(NamedTuple):
    """B molecules with N atoms and T = sum of n (n - 1) / 2 pairs of atoms.

    Attributes:
        ptr: [B + 1] int64, molecule g owns the atoms ``ptr[g]:ptr[g + 1]``.
        atoms: [N] int64, the label of every atom.
        pairs: [T] int64, the label of every pair, an index into :data:`PAIR_TYPES`, in the order of
            :class:`~graphgen.ops.Pairs`.
    """

    ptr: Tensor
    atoms: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, batch: MoleculeBatch) -> CompleteGraphs:
        """The molecules of a batch."""
        graph = batch.graph
        assert graph.edge_attr is not None, "a batch of molecules has bond types"
        ptr = graph.ptr.long()
        once = graph.target < graph.col
        first, second = graph.target[once].long(), graph.col[once].long()
        owner = graph.batch.long()[first]
        kinds = torch.zeros(int(_pair_ptr(ptr)[-1]), dtype=torch.int64, device=ptr.device)
        kinds[_place(ptr, owner, first, second)] = graph.edge_attr[once].long() + 1
        return cls(ptr, batch.atoms, kinds)

    def reordered(self, order: Tensor) -> CompleteGraphs:
        """The same molecules with their atoms in another order.

        Args:
            order: [N] int64, which atom stands at each place; of every molecule its own ones.
        """
        tokens = Pairs(self.ptr)
        one, other = order[tokens.first], order[tokens.second]
        places = _place(self.ptr, tokens.of_pair, torch.minimum(one, other), torch.maximum(one, other))
        return CompleteGraphs(self.ptr, self.atoms[order], self.pairs[places])

    def molecules(self, vocabulary: Vocabulary) -> list[MoleculeGraph]:
        """Each as the codec decodes it; whether chemistry allows it is not looked at."""
        pairs = Pairs(self.ptr)
        bonded = (self.pairs > 0).nonzero().flatten()
        owner = pairs.of_pair[bonded]
        bounds = torch.searchsorted(owner, torch.arange(len(self.ptr), device=owner.device)).tolist()
        begin = self.ptr[owner]
        bonds = torch.stack(
            (pairs.first[bonded] - begin, pairs.second[bonded] - begin, self.pairs[bonded] - 1), 1
        ).tolist()
        labels = [vocabulary.atoms[label] for label in self.atoms.tolist()]
        return [
            MoleculeGraph(tuple(labels[a:b]), tuple((u, v, kind) for u, v, kind in bonds[low:high]))
            for (a, b), (low, high) in zip(pairwise(self.ptr.tolist()), pairwise(bounds), strict=True)
        ]


def _pair_ptr(ptr: Tensor) -> Tensor:
    sizes = ptr.diff()
    return torch.cat([sizes.new_zeros(1), (sizes * (sizes - 1) // 2).cumsum(0)])


def _place(ptr: Tensor, owner: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[M] where the pairs of atoms first < second lie among all."""
    i, n = first - ptr[owner], ptr.diff()[owner]
    return _pair_ptr(ptr)[owner] + i * (2 * n - i - 1) // 2 + second - first - 1
