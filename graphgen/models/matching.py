"""Which atom of a molecule each place of a decoder stands for.

A decoder gives laws of labels to places, and a molecule's atoms have no order: its probability is that of all orders
together, which no one can sum. A training step therefore takes one order, and what is learnt with it bounds the
probability from below. Three ways to choose:

    canonical   the order that depends on the molecule alone, see graphgen.molecules.orders. It needs no search, and
                the decoder learns it; the same molecule is asked of the same places always.
    max-pool    GraphVAE's: similarities of pairs, pooled over the best partner, until one vector of all (atom, place)
                remains; then the best one-to-one reading of it.
    hungarian   the likeliest order is a quadratic assignment: from all orders at once, mixed evenly, steps towards the
                best linear one of the moment, which is solved exactly, as far as each step betters the mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops import Pairs
from graphgen.solvers.assignment import assign

_POOLINGS = 75  # as GraphVAE has it
_STEPS = 8


class Laws(NamedTuple):
    """What a decoder says of B molecules: logits [N, c] of the labels of places and [T, 4] of their pairs."""

    atoms: Tensor
    pairs: Tensor


def missed(end: CompleteGraphs, laws: Laws) -> Tensor:
    """[B] minus the log-probability of molecules whose atoms stand at the places in their order, nats."""
    tokens = Pairs(end.ptr)
    of_atoms = torch.nn.functional.cross_entropy(laws.atoms, end.atoms, reduction="none")
    of_pairs = torch.nn.functional.cross_entropy(laws.pairs, end.pairs, reduction="none")
    total = of_atoms.new_zeros(tokens.molecules).index_add(0, tokens.of_atom, of_atoms)
    return total.index_add(0, tokens.of_pair, of_pairs)


@torch.no_grad()
def max_pool(batch: MoleculeBatch, end: CompleteGraphs, laws: Laws) -> Tensor:
    """[N] which atom stands at each place, by max-pooling matching.

    Between two bonded atoms i, j and two places a, b the similarity is the probability of their bond at (a, b); between
    an atom and a place, that of its label there. Pairs without a bond are similar to none.

    Source: Cho, Sun, Duchenne and Ponce, CVPR 2014; with these similarities Simonovsky and Komodakis 2018, section 3.4.
    """
    padded = _Padded(end, laws)
    own = padded.of_atoms.softmax(2)[padded.owner, :, batch.atoms] * padded.real[padded.owner]
    bond = padded.of_pairs.softmax(3)
    bond[:, range(bond.shape[1]), range(bond.shape[1])] = 0
    target, source = batch.graph.target.long(), batch.graph.col.long()
    kind = batch.graph.edge_attr.long() + 1  # type: ignore[union-attr]
    along = bond[padded.owner[target], :, :, kind] * padded.real[padded.owner[target]].unsqueeze(1)
    x = padded.real[padded.owner].to(own.dtype)
    for _ in range(_POOLINGS):
        pooled = (along * x[source].unsqueeze(1)).amax(2)
        x = (x * own).index_add(0, target, pooled)
        size = x.new_zeros(len(end.ptr) - 1).index_add(0, padded.owner, x.square().sum(1))
        x = x / size.sqrt().clamp(min=1e-30)[padded.owner].unsqueeze(1)
    return padded.places(-x)


@torch.no_grad()
def hungarian(batch: MoleculeBatch, end: CompleteGraphs, laws: Laws) -> Tensor:
    """[N] which atom stands at each place: of a few linear assignments the one of the likeliest labels.

    Source: Vogelstein et al., PLoS ONE 2015 (fast approximate quadratic assignment), from the flat start.
    """
    padded = _Padded(end, laws)
    own = -padded.of_atoms.log_softmax(2)[padded.owner, :, batch.atoms]
    of_kinds = -padded.of_pairs.log_softmax(3)
    of_kinds[:, range(of_kinds.shape[1]), range(of_kinds.shape[1])] = 0
    of_kinds = of_kinds * padded.real[:, None, :, None]
    target, source = batch.graph.target.long(), batch.graph.col.long()
    kind = batch.graph.edge_attr.long() + 1  # type: ignore[union-attr]
    none = of_kinds[padded.owner, :, :, 0]
    bonded = of_kinds[padded.owner[target], :, :, kind] - none[target]

    def slope(x: Tensor) -> Tensor:
        """[N, n] what an atom at a place costs, beside all others where the mixture x [N, n] has them."""
        # The atoms other than i are, together, at each place as much as i is not.
        others = (none @ (1 - x).unsqueeze(2)).squeeze(2)
        return (own + others).index_add(0, target, (bonded @ x[source].unsqueeze(2)).squeeze(2))

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(end.ptr) - 1).index_add(0, padded.owner, values.sum(1))

    x = padded.real[padded.owner] / end.ptr.diff()[padded.owner].to(own.dtype).unsqueeze(1)
    best, least = torch.arange(len(batch.atoms), device=own.device), own.new_full((len(end.ptr) - 1,), torch.inf)
    cost = slope(x)
    for _ in range(_STEPS):
        found = padded.places(cost)
        loss = missed(end.reordered(found), laws)
        best = torch.where((loss < least)[padded.owner], found, best)
        least = torch.minimum(loss, least)
        corner = torch.zeros_like(x)
        corner[found, padded.place] = 1
        way, cost_there = corner - x, slope(corner)
        falls, bends = total(way * cost), total(way * (cost_there - cost))
        share = torch.where(bends > 0, (-falls / bends.clamp(min=1e-12)).clamp(0, 1), 1.0)[padded.owner].unsqueeze(1)
        x, cost = x + share * way, torch.lerp(cost, cost_there, share)
    return best


MATCHINGS: dict[str, Callable[[MoleculeBatch, CompleteGraphs, Laws], Tensor] | None] = {
    "canonical": None,
    "max-pool": max_pool,
    "hungarian": hungarian,
}
"""By name; None searches for nothing."""


class _Padded:
    """Laws as [B, n, c] of places and [B, n, n, 4] of their pairs, n places of the largest molecule."""

    def __init__(self, end: CompleteGraphs, laws: Laws) -> None:
        tokens = Pairs(end.ptr)
        (many, most), places, upper, lower, _ = tokens.padded
        self.ptr, self.owner = tokens.ptr, tokens.of_atom
        self.place = places - self.owner * most
        atoms, pairs = laws.atoms.detach(), laws.pairs.detach()
        self.of_atoms = atoms.new_zeros(many * most, atoms.shape[1]).index_copy_(0, places, atoms)
        self.of_atoms = self.of_atoms.view(many, most, -1)
        self.of_pairs = pairs.new_zeros(many * most * most, pairs.shape[1])
        self.of_pairs = self.of_pairs.index_copy_(0, upper, pairs).index_copy_(0, lower, pairs)
        self.of_pairs = self.of_pairs.view(many, most, most, -1)
        self.real = torch.arange(most, device=places.device) < self.ptr.diff().unsqueeze(1)
        self._flat = places

    def places(self, cost: Tensor) -> Tensor:
        """[N] which atom stands at each place, of the least total cost [N, n] of atoms at places."""
        many, most = self.real.shape
        square = cost.new_zeros(many * most, most).index_copy_(0, self._flat, cost).view(many, most, most)
        # What is no atom goes where there is no place, and the other way round.
        apart = self.real.unsqueeze(2) != self.real.unsqueeze(1)
        square = square.masked_fill(~self.real.unsqueeze(1), 0).masked_fill(
            apart, 2 * float(cost.abs().max()) * most + 1
        )
        place = assign(square).flatten()[self._flat]
        order = torch.empty_like(place)
        order[self.ptr[self.owner] + place] = torch.arange(len(place), device=place.device)
        return order
