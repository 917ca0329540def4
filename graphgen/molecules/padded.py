"""Molecules padded to one number of atoms, and orders of their atoms. Needs no RDKit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops import Pairs
from graphgen.ops.noise import Stream

_FAR = 2**40
_MIX = -7046029254386353131  # an odd number of 64 random-looking bits (2^64 over the golden ratio)


class PaddedMolecules(NamedTuple):
    """B molecules of at most n atoms; the real atoms come first.

    Attributes:
        sizes: [B] int64 numbers of atoms.
        atoms: [B, n] int64 labels, 0 behind the last atom.
        bonds: [B, n, n] int64, symmetric: the order of the bond between two atoms, 0 for none.
    """

    sizes: Tensor
    atoms: Tensor
    bonds: Tensor

    @classmethod
    def of(cls, whole: CompleteGraphs, most: int) -> PaddedMolecules:
        """Complete graphs padded to `most` atoms.

        Raises:
            GraphgenError: one of them has more.
        """
        sizes, tokens = whole.ptr.diff(), Pairs(whole.ptr)
        if len(sizes) and int(sizes.max()) > most:
            raise GraphgenError(f"a molecule of {int(sizes.max())} atoms does not fit into {most}; leave it out")
        place = torch.arange(len(whole.atoms), device=sizes.device) - whole.ptr[tokens.of_atom]
        atoms = torch.zeros(len(sizes), most, dtype=torch.int64, device=sizes.device)
        atoms[tokens.of_atom, place] = whole.atoms
        bonds = torch.zeros(len(sizes), most, most, dtype=torch.int64, device=sizes.device)
        i, j = place[tokens.first], place[tokens.second]
        bonds[tokens.of_pair, i, j] = whole.pairs
        bonds[tokens.of_pair, j, i] = whole.pairs
        return cls(sizes, atoms, bonds)

    @property
    def real(self) -> Tensor:
        """[B, n] bool, whether there is an atom."""
        return torch.arange(self.atoms.shape[1], device=self.atoms.device) < self.sizes.unsqueeze(1)

    def complete(self) -> CompleteGraphs:
        """Without the padding."""
        ptr = torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])
        tokens, real = Pairs(ptr), self.real
        i, j = tokens.first - ptr[tokens.of_pair], tokens.second - ptr[tokens.of_pair]
        return CompleteGraphs(ptr, self.atoms[real], self.bonds[tokens.of_pair, i, j])

    def ordered(self, order: Tensor) -> PaddedMolecules:
        """The same molecules; ``order`` [B, n] says which atom comes at each place."""
        most = self.atoms.shape[1]
        rows = self.bonds.gather(1, order.unsqueeze(2).expand(-1, -1, most))
        columns = order.unsqueeze(1).expand(-1, most, -1)
        return PaddedMolecules(self.sizes, self.atoms.gather(1, order), rows.gather(2, columns))


def canonical_order(molecules: PaddedMolecules) -> Tensor:
    """[B, n] the atoms by colour refinement (Weisfeiler & Leman 1968), from rarest labels on; padding last.

    Colours start as labels and are refined by those of the neighbours and the bonds to them until no class splits.
    Of the first class that has several atoms one is then set apart, and so on. The atoms of a class are nearly always
    images of each other under a symmetry of the molecule, and the ordered molecule is then the same whichever was
    taken: the result does not depend on the order that the atoms came in. (Where colour refinement cannot tell atoms
    apart that no symmetry exchanges, which takes very regular molecules, it may.)
    """
    real = molecules.real
    colour = _rank(torch.where(real, molecules.atoms, _FAR))
    while True:
        colour = _refined(colour, molecules.bonds)
        shared = (colour.unsqueeze(2) == colour.unsqueeze(1)).sum(2)
        open_ = real & (shared > 1)
        if not bool(open_.any()):
            break
        first = torch.where(open_, colour, _FAR).argmin(1, keepdim=True)
        split = 2 * colour + 1
        taken = torch.where(open_.any(1, keepdim=True), 2 * colour.gather(1, first), split.gather(1, first))
        colour = _rank(split.scatter(1, first, taken))
    return colour.argsort(dim=1, stable=True)


def bfs_order(molecules: PaddedMolecules) -> Tensor:
    """[B, n] breadth first from the atom that is first in :func:`canonical_order`, neighbours in that order too."""
    return _search_order(molecules, breadth_first=True)


def dfs_order(molecules: PaddedMolecules) -> Tensor:
    """[B, n] depth first, as SMILES are written, otherwise as :func:`bfs_order`."""
    return _search_order(molecules, breadth_first=False)


def shuffled_atoms(batch: MoleculeBatch, seed: int, step: int = 0) -> MoleculeBatch:
    """The same molecules with their atoms in an order drawn by the noise source, all orders equally likely."""
    graph = batch.graph
    keys = ops.uniform(graph.ptr, 1, seed, Stream.PLACE, step, batch.ids).squeeze(1)
    order = (keys.double() + graph.batch).argsort()
    place = order.argsort()
    edges = torch.stack((place[graph.col.long()], place[graph.target.long()]))
    again = GraphBatch.from_edge_index(edges, graph.num_nodes, ptr=graph.ptr, edge_attr=graph.edge_attr)
    return batch._replace(graph=again, atoms=batch.atoms[order])


ORDERS: dict[str, Callable[[PaddedMolecules], Tensor]] = {
    "canonical": canonical_order,
    "bfs": bfs_order,
    "dfs": dfs_order,
}
"""Orders that do not depend on the one in which the atoms come."""


def _rank(values: Tensor) -> Tensor:
    """[B, n] how many of the row are smaller: equal values stay equal."""
    return (values.unsqueeze(1) < values.unsqueeze(2)).sum(2)


def _refined(colour: Tensor, bonds: Tensor) -> Tensor:
    classes = _distinct(colour)
    while True:
        seen = torch.where(bonds > 0, _hash(colour.unsqueeze(1) * 4 + bonds), 0).sum(2)
        # Old colours stay the more significant, so that a class splits and never moves.
        colour = _rank(colour * 2**32 + (_hash(seen) >> 33))
        now = _distinct(colour)
        if torch.equal(now, classes):
            return colour
        classes = now


def _distinct(colour: Tensor) -> Tensor:
    """[B] how many colours there are."""
    ordered = colour.sort(1).values
    return (ordered.diff(dim=1) > 0).sum(1)


def _hash(values: Tensor) -> Tensor:
    mixed = (values + 1) * _MIX
    mixed = (mixed ^ (mixed >> 29)) * _MIX
    return mixed ^ (mixed >> 32)


def _search_order(molecules: PaddedMolecules, breadth_first: bool) -> Tensor:
    """An atom's parent is the earliest placed neighbour, or depth first the latest."""
    most = molecules.atoms.shape[1]
    rank = canonical_order(molecules).argsort(dim=1)
    bonded = molecules.bonds > 0
    parent = torch.full_like(rank, most)
    left = torch.ones_like(rank, dtype=torch.bool)
    order = []
    for place in range(most):
        nearest = parent if breadth_first else torch.where(parent < most, most - 1 - parent, most)
        key = torch.where(left, nearest * most + rank, _FAR)
        chosen = key.argmin(1, keepdim=True)
        order.append(chosen)
        left = left.scatter(1, chosen, False)
        reached = bonded.gather(1, chosen.unsqueeze(2).expand(-1, 1, most)).squeeze(1)
        if breadth_first:
            reached = reached & (parent == most)
        parent = torch.where(reached, place, parent)
    return torch.cat(order, 1)
