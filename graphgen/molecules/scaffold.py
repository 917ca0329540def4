"""Parts of molecules that are decided, and which of a batch's tokens those decide. Needs no RDKit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
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

    def which(self, tokens: Pairs) -> tuple[Tensor, Tensor]:
        """[N] and [T] bool, the decided ones of the batch."""
        atoms, pairs = (torch.zeros_like(x, dtype=torch.bool) for x in (tokens.of_atom, tokens.of_pair))
        return atoms.index_fill(0, self.atom_at, True), pairs.index_fill(0, self.pair_at, True)


def random_part(graph: GraphBatch, shares: Tensor, ties: Tensor) -> Tensor:
    """[N] bool, the atoms around one of each molecule that are the nearest to it along the bonds.

    Connected if the molecule is, for the way to an atom leads by nearer ones.

    Args:
        shares: [B] from 0 to 1, how much of each molecule; at least one atom, or none at 0 or below.
        ties: [N] from 0 to 1, of which the greatest marks the first atom, and the lesser is nearer at equal distance.
    """
    owner, ptr = graph.batch.long(), graph.ptr.long()
    place = torch.arange(len(owner), device=owner.device) - ptr[owner]
    first = ties == ties.new_zeros(len(shares)).scatter_reduce(0, owner, ties, "amax", include_self=False)[owner]
    distance = torch.where(first, 0.0, torch.inf)
    one, other = graph.target.long(), graph.col.long()
    while True:
        nearer = distance.scatter_reduce(0, one, distance[other] + 1, "amin")
        if bool((nearer == distance).all()):
            break
        distance = nearer
    by_distance = torch.where(distance.isinf(), len(owner), distance) + ties / 2
    order = by_distance.argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    rank = torch.empty_like(place).index_copy(0, order, place)
    return rank < (shares * ptr.diff()).ceil()[owner]
