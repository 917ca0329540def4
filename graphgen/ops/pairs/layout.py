"""Where the atoms and the pairs of molecules lie."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Padded(NamedTuple):
    """Places in a batch padded to its largest molecule, of n atoms.

    Attributes:
        shape: B and n.
        node: [N] an atom's place among B n.
        upper, lower: [T] the places of (i, j) and (j, i) among B n n.
        visible: [B, n, n] bool, which (i, j) are two atoms of the molecule.
    """

    shape: tuple[int, int]
    node: Tensor
    upper: Tensor
    lower: Tensor
    visible: Tensor


class Squares(NamedTuple):
    """Places in molecules that have all n n pairs of their n atoms, row i n + j, one molecule after the other.

    Attributes:
        ptr: [B + 1] the bounds of the molecules' rows.
        upper, lower: [T] the places of (i, j) and (j, i).
    """

    ptr: Tensor
    upper: Tensor
    lower: Tensor


class Pairs:
    """All pairs i < j of atoms of the same molecule, once each.

    Those of a molecule lie together, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Args:
        ptr: [B + 1] int64, molecule g owns the atoms ``ptr[g]:ptr[g + 1]``.

    Attributes:
        pair_ptr: [B + 1] int64, molecule g owns the pairs ``pair_ptr[g]:pair_ptr[g + 1]``.
        first, second: [T] int64, places of i and j among all N atoms.
    """

    def __init__(self, ptr: Tensor) -> None:
        self.ptr = ptr.long().contiguous()
        sizes = self.ptr.diff()
        self.pair_ptr = torch.cat([sizes.new_zeros(1), (sizes * (sizes - 1) // 2).cumsum(0)])
        atom = torch.arange(int(self.ptr[-1]), device=ptr.device)
        later = torch.repeat_interleave(self.ptr[1:], sizes) - 1 - atom
        self.first = torch.repeat_interleave(atom, later)
        begins = later.cumsum(0) - later
        self.second = self.first + 1 + torch.arange(len(self.first), device=ptr.device) - begins[self.first]

    @property
    def molecules(self) -> int:
        return len(self.ptr) - 1

    @cached_property
    def addresses(self) -> list[int]:
        """Of ptr and pair_ptr."""
        return [self.ptr.data_ptr(), self.pair_ptr.data_ptr()]

    @cached_property
    def of_atom(self) -> Tensor:
        """[N] the molecule of each atom."""
        return torch.repeat_interleave(torch.arange(self.molecules, device=self.ptr.device), self.ptr.diff())

    @cached_property
    def of_pair(self) -> Tensor:
        """[T] the molecule of each pair."""
        return self.of_atom[self.first]

    @cached_property
    def padded(self) -> Padded:
        sizes = self.ptr.diff()
        most = int(sizes.max()) if len(sizes) else 0
        place = torch.arange(len(self.of_atom), device=self.ptr.device) - self.ptr[self.of_atom]
        i, j, begin = place[self.first], place[self.second], self.of_pair * most * most
        real = torch.arange(most, device=self.ptr.device) < sizes.unsqueeze(1)
        apart = ~torch.eye(most, dtype=torch.bool, device=self.ptr.device)
        return Padded(
            (self.molecules, most),
            self.of_atom * most + place,
            begin + i * most + j,
            begin + j * most + i,
            real.unsqueeze(2) & real.unsqueeze(1) & apart,
        )

    @cached_property
    def squares(self) -> Squares:
        sizes = self.ptr.diff()
        ptr = torch.cat([sizes.new_zeros(1), (sizes * sizes).cumsum(0)])
        begin, n = (ptr[:-1] - self.ptr[:-1] * (sizes + 1))[self.of_pair], sizes[self.of_pair]
        return Squares(ptr, begin + self.first * n + self.second, begin + self.second * n + self.first)
