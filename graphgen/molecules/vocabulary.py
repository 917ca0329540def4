"""Atom types: an element together with its formal charge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

CODEC_VERSION = 1
"""Of the graph form below and its rules; raise it whenever the same input could encode differently."""

BOND_TYPES = ("single", "double", "triple")
"""Names of the bond types of a kekulised molecule; a bond's type is its order minus one."""

Atom = tuple[str, int]
"""Element symbol and formal charge."""


class MoleculeGraph(NamedTuple):
    """A molecule without hydrogens, stereo or isotopes.

    ``atoms`` holds (element, formal charge) pairs; ``bonds`` holds (u, v, type) with u < v, indices into
    ``atoms``, and type an index into :data:`BOND_TYPES`.
    """

    atoms: tuple[Atom, ...]
    bonds: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Vocabulary:
    """The atom types of a data set, most frequent first; ties are in order of element, then charge."""

    atoms: tuple[Atom, ...]
    _index: Mapping[Atom, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.atoms)) != len(self.atoms):
            raise ValueError(f"an atom type is listed twice: {self.atoms}")
        object.__setattr__(self, "_index", {atom: i for i, atom in enumerate(self.atoms)})

    @classmethod
    def count(cls, graphs: Iterable[MoleculeGraph]) -> Vocabulary:
        """The vocabulary of all atoms of ``graphs``."""
        return cls.from_counts(Counter(atom for graph in graphs for atom in graph.atoms))

    @classmethod
    def from_counts(cls, counts: Mapping[Atom, int]) -> Vocabulary:
        """The vocabulary of atom types that occur ``counts[atom]`` times."""
        return cls(tuple(sorted(counts, key=lambda atom: (-counts[atom], atom))))

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def names(self) -> list[str]:
        """A short name for each atom type: ``["C", "N", "O", "N+", "O-", "N+2"]``."""
        return [_name(element, charge) for element, charge in self.atoms]

    def index(self, element: str, charge: int = 0) -> int:
        """The index of an atom type.

        Raises:
            KeyError: the type is not in the vocabulary; the message names the types that are.
        """
        try:
            return self._index[(element, charge)]
        except KeyError:
            known = ", ".join(self.names)
            raise KeyError(f"no atom type {_name(element, charge)}; there are {known}") from None

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable form, read back by :meth:`from_json`."""
        return {"atoms": [[element, charge] for element, charge in self.atoms]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that :meth:`to_json` wrote."""
        return cls(tuple((str(element), int(charge)) for element, charge in data["atoms"]))


def _name(element: str, charge: int) -> str:
    sign = "+" if charge > 0 else "-"
    return element + ("" if charge == 0 else sign if abs(charge) == 1 else f"{sign}{abs(charge)}")
