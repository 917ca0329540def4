"""Molecules padded to one number of atoms. Needs no RDKit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.molecules.complete import CompleteGraphs
from graphgen.ops import Pairs


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
