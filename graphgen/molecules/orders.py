"""Orders of a molecule's atoms. Need no RDKit."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import ops
from graphgen.graph import GraphBatch
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops.noise import Stream

_SPREAD = 4  # rounds that tell an atom how central it is
_REFINE = 3  # rounds of refinement after each atom that is numbered
_LARGEST = torch.iinfo(torch.int64).max


def canonical_order(graph: GraphBatch, atoms: Tensor, breadth_first: bool = False) -> Tensor:
    """[N] int64: which atom stands at each place, by the molecule alone; g keeps the places ``ptr[g]:ptr[g + 1]``.

    A walk in depth from the least central atom, as a SMILES is written: next comes a neighbour of the atom numbered
    last that has one left, of these the least central, so that small branches come before large ones. Atoms still
    alike are told apart by colours (Weisfeiler and Leman 1968), which take in all numbers given so far; those of one
    colour are taken for symmetric, and the first of them is next. Of molecules it is rarely wrong: in C1CC1CCC1CC1 all
    CH2 have one colour, in a ring or not, and the order depends on the one given. A molecule in several pieces is
    walked piece by piece.

    Args:
        graph: B molecules with bond types, both directions of a bond present.
        atoms: [N] int64 labels.
        breadth_first: next comes a neighbour of the atom numbered first that has one left.
    """
    target, source, owner = graph.target.long(), graph.col.long(), graph.batch.long()
    assert graph.edge_attr is not None, "a batch of molecules has bond types"
    ptr, bond = graph.ptr.long(), graph.edge_attr.long() + 1
    central = atoms + 1
    for _ in range(_SPREAD):
        central = (2 * central).index_add(0, target, bond * central[source])
    colour = _mixed(_mixed(central) + atoms)
    order, places = torch.empty_like(atoms), torch.arange(len(atoms), device=atoms.device)
    number, met = torch.full_like(atoms, -1), torch.full_like(atoms, -1)  # of the atom, of its latest neighbour
    sizes = ptr.diff()
    for step in range(int(sizes.max()) if len(sizes) else 0):
        for _ in range(_REFINE):
            colour = _mixed(colour.index_add(0, target, _mixed(4 * colour[source] + bond)))
        left = number < 0
        nearest = met.where(met >= 0, _LARGEST) if breadth_first else -met
        for key in (nearest, central, colour, places):
            key = torch.where(left, key, _LARGEST)
            least = torch.full_like(sizes, _LARGEST).scatter_reduce(0, owner, key, "amin")
            left = left & (key == least[owner])
        chosen = left.nonzero().squeeze(1)
        order[ptr[owner[chosen]] + step] = chosen
        number[chosen] = step
        reached = target[left[source]]
        met[reached] = met[reached].where(met[reached] >= 0, step) if breadth_first else step
        colour = torch.where(left, _mixed(colour + step + 1), colour)
    return order


def shuffled_atoms(batch: MoleculeBatch, seed: int, step: int = 0) -> MoleculeBatch:
    """The same molecules with their atoms in an order drawn by the noise source, all orders equally likely."""
    graph = batch.graph
    keys = ops.uniform(graph.ptr, 1, seed, Stream.PLACE, step, batch.ids).squeeze(1)
    order = (keys.double() + graph.batch).argsort()
    place = order.argsort()
    edges = torch.stack((place[graph.col.long()], place[graph.target.long()]))
    again = GraphBatch.from_edge_index(edges, graph.num_nodes, ptr=graph.ptr, edge_attr=graph.edge_attr)
    return batch._replace(graph=again, atoms=batch.atoms[order])


def _mixed(x: Tensor) -> Tensor:
    """Numbers that have nothing in common unless they are equal (the finaliser of SplitMix64, with other shifts)."""
    x = (x ^ (x >> 31)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return x ^ (x >> 31)
