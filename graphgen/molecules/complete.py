"""Molecules as complete graphs: a label for every atom and one for every pair of atoms. Needs no RDKit."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import BOND_TYPES, MoleculeGraph, Vocabulary

PAIR_TYPES = ("none", *BOND_TYPES)
"""Names of a pair's labels; a label is the order of the bond, 0 for none."""


class CompleteGraphs(NamedTuple):
    """B molecules with N atoms and P = sum of n * n ordered pairs of atoms.

    Attributes:
        ptr: [B + 1] int64, molecule g owns the atoms ``ptr[g]:ptr[g + 1]``.
        atoms: [N] int64, the label of every atom.
        pairs: [P] int64, the label of every pair, an index into :data:`PAIR_TYPES`. Those of a molecule of n atoms lie
            together, (i, j) in their row i * n + j, as symmetric noise has them; both orders are equal, (i, i) is 0.
    """

    ptr: Tensor
    atoms: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, batch: MoleculeBatch) -> CompleteGraphs:
        """The molecules of a batch."""
        graph = batch.graph
        assert graph.edge_attr is not None, "a batch of molecules has bond types"
        ptr, begins = graph.ptr.long(), pair_ptr(graph.ptr)
        owner = graph.batch.long()[graph.target.long()]
        row = (graph.target - ptr[owner]) * ptr.diff()[owner] + (graph.col - ptr[owner])
        pairs = torch.zeros(int(begins[-1]), dtype=torch.int64, device=ptr.device)
        pairs[begins[owner] + row] = graph.edge_attr.long() + 1
        return cls(ptr, batch.atoms, pairs)

    def molecules(self, vocabulary: Vocabulary) -> list[MoleculeGraph]:
        """Each as the codec decodes it; whether chemistry allows it is not looked at."""
        first, second = pair_ends(self.ptr)
        bonded = ((self.pairs > 0) & (first < second)).nonzero().flatten()
        owner = torch.bucketize(first[bonded], self.ptr[1:], right=True)
        bounds = torch.searchsorted(owner, torch.arange(len(self.ptr), device=owner.device)).tolist()
        begin = self.ptr[owner]
        bonds = torch.stack((first[bonded] - begin, second[bonded] - begin, self.pairs[bonded] - 1), 1).tolist()
        labels = [vocabulary.atoms[label] for label in self.atoms.tolist()]
        return [
            MoleculeGraph(tuple(labels[a:b]), tuple((u, v, kind) for u, v, kind in bonds[low:high]))
            for (a, b), (low, high) in zip(pairwise(self.ptr.tolist()), pairwise(bounds), strict=True)
        ]


def pair_ptr(ptr: Tensor) -> Tensor:
    """[B + 1] int64: where the pairs of each molecule begin."""
    squares = ptr.long().diff() ** 2
    return torch.cat([squares.new_zeros(1), squares.cumsum(0)])


def pair_ends(ptr: Tensor) -> tuple[Tensor, Tensor]:
    """[P] int64 each: the first and the second atom of every pair, as places among all N atoms."""
    ptr, begins = ptr.long(), pair_ptr(ptr)
    sizes = ptr.diff()
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=ptr.device), begins.diff())
    row = torch.arange(len(owner), device=ptr.device) - begins[owner]
    return ptr[owner] + row // sizes[owner], ptr[owner] + row % sizes[owner]
