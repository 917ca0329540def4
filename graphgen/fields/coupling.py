"""Couplings of a flow on padded molecules: a part of the numbers is moved and scaled as the others say.

Each is a map y = s(rest) * x + t(rest) of one atom's numbers or of one atom's pairs, so its inverse is as cheap as
itself and the log-determinant of its Jacobian is the sum of log s over the numbers that it moves, and over no others.
With u = tanh(...) / 2 the scale is (1 + u) / (1 - u), between 1/3 and 3: its logarithm is symmetric and bounded, and
products and quotients round alike wherever an element lies in a tensor, which an exponential's vectors do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields.layers import Linear


class Move(NamedTuple):
    """What a coupling does to the numbers of its part, [B, F] each; 0 where a molecule has none.

    Attributes:
        shift: t.
        half: u, or None where nothing is scaled.
        present: 1 where the molecule has the number, else 0.
    """

    shift: Tensor
    half: Tensor | None
    present: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The part [B, F] moved, and the log-determinant [B]."""
        if self.half is None:
            return x + self.shift * self.present, x.new_zeros(len(x))
        moved = x * ((1 + self.half) / (1 - self.half)) + self.shift
        return moved * self.present, 2 * (torch.atanh(self.half) * self.present).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The part [B, F] before it was moved."""
        moved = y - self.shift
        return (moved if self.half is None else moved * ((1 - self.half) / (1 + self.half))) * self.present


class Network(nn.Module):
    """Two hidden layers to the shifts and scales of F numbers; at first it leaves all as they are."""

    def __init__(self, inner: int, hidden: int, moved: int, affine: bool) -> None:
        super().__init__()
        self.first, self.second = Linear(inner, hidden), Linear(hidden, hidden)
        self.last = Linear(hidden, moved * (1 + affine))
        self.affine = affine
        nn.init.zeros_(self.last.weight)

    def forward(self, rest: Tensor, present: Tensor) -> Move:
        out = self.last(ops.activation(self.second(ops.activation(self.first(rest)))))
        if not self.affine:
            return Move(out, None, present)
        shift, scale = out.chunk(2, 1)
        return Move(shift, ops.activation(scale, "tanh") / 2, present)


class PairCoupling(nn.Module):
    """Moves the pairs of one atom as all other pairs say: one row of the adjacency matrix against the rest.

    Args:
        atom: whose pairs.
        most: n, atoms of a padded molecule.
        kinds: numbers per pair.
        given: numbers per molecule that are known beside.
        hidden, affine: of the :class:`Network`.
    """

    own: Tensor
    rest: Tensor

    def __init__(self, atom: int, most: int, kinds: int, given: int, hidden: int, affine: bool) -> None:
        super().__init__()
        self.atom = atom
        ends = torch.triu_indices(most, most, 1)
        mine = (ends == atom).any(0)
        for name, pairs in (("own", mine), ("rest", ~mine)):
            numbers = pairs.nonzero() * kinds + torch.arange(kinds)
            self.register_buffer(name, numbers.flatten(), persistent=False)
        self.network = Network(len(self.rest) + given, hidden, len(self.own), affine)

    def forward(self, x: Tensor, given: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: [B, n (n - 1) / 2 * kinds] numbers of the pairs (0, 1), (0, 2), ..., (1, 2), ...; 0 where there is none.
            given: [B, given].
            present: 1 where a molecule has the number, else 0, as x.

        Returns:
            x with the atom's pairs moved, and the log-determinant [B].
        """
        moved, log_det = self._move(x, given, present).forward(x.index_select(1, self.own))
        return x.index_copy(1, self.own, moved), log_det

    def inverse(self, y: Tensor, given: Tensor, present: Tensor) -> Tensor:
        """The numbers that :meth:`forward` made y of."""
        own = self._move(y, given, present).inverse(y.index_select(1, self.own))
        return y.index_copy(1, self.own, own)

    def _move(self, x: Tensor, given: Tensor, present: Tensor) -> Move:
        rest = torch.cat((x.index_select(1, self.rest), given), 1)
        return self.network(rest, present.index_select(1, self.own))


class Surroundings(NamedTuple):
    """What does not change while atoms are moved, of each of n atoms.

    Attributes:
        bonded: [B, n - 1, bonds] 1 where it has a bond of that type to each of the others, else 0.
        given: [B, F] what is known of it.
        present: [B, 1] 1 where there is such an atom, else 0.
    """

    bonded: Sequence[Tensor]
    given: Sequence[Tensor]
    present: Sequence[Tensor]


class AtomCoupling(nn.Module):
    """Moves the numbers of one atom as the other atoms and the bonds say.

    It knows what a graph network has found out about the atom's place among the bonds, the sum of its neighbours'
    numbers over each type of bond, and all other atoms.

    Args:
        atom: which.
        most: n, atoms of a padded molecule.
        types: numbers per atom.
        bonds: types of bonds.
        given: numbers that are known of the atom.
        hidden, affine: of the :class:`Network`.
    """

    def __init__(self, atom: int, most: int, types: int, bonds: int, given: int, hidden: int, affine: bool) -> None:
        super().__init__()
        self.atom = atom
        self.network = Network((most - 1 + bonds) * types + given, hidden, types, affine)

    def forward(self, x: Sequence[Tensor], around: Surroundings) -> tuple[list[Tensor], Tensor]:
        """
        Args:
            x: of each of n atoms [B, types] numbers, 0 where there is no atom.

        Returns:
            x with the atom moved, and the log-determinant [B].
        """
        moved, log_det = self._move(x, around).forward(x[self.atom])
        return self._put(x, moved), log_det

    def inverse(self, y: Sequence[Tensor], around: Surroundings) -> list[Tensor]:
        """The numbers that :meth:`forward` made y of."""
        return self._put(y, self._move(y, around).inverse(y[self.atom]))

    def _put(self, x: Sequence[Tensor], own: Tensor) -> list[Tensor]:
        return [*x[: self.atom], own, *x[self.atom + 1 :]]

    def _move(self, x: Sequence[Tensor], around: Surroundings) -> Move:
        others = (
            torch.stack([*x[: self.atom], *x[self.atom + 1 :]], 1)
            if len(x) > 1
            else x[0].new_zeros(len(x[0]), 0, x[0].shape[1])
        )
        sums = (around.bonded[self.atom].unsqueeze(3) * others.unsqueeze(2)).sum(1)
        known = torch.cat((sums.flatten(1), others.flatten(1), around.given[self.atom]), 1)
        return self.network(known, around.present[self.atom])
