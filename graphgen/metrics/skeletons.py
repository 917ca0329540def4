"""Generated labels put back on the skeletons they were generated for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.generated import Generated
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.vocabulary import Atom, Vocabulary


@dataclass(frozen=True, eq=False)
class Skeletons:
    """The skeletons of M attempts with N atoms together.

    Attributes:
        batch: one graph for each attempt; ``batch.atoms`` are the true labels.
        distinct: the same skeletons, each once.
        vocabulary: what all labels here are indices into: the atom types of skeletons and training split.
    """

    batch: MoleculeBatch
    distinct: MoleculeBatch
    vocabulary: Vocabulary

    @classmethod
    def of(cls, rows: Tensor, skeletons: EncodedMolecules, known: tuple[Atom, ...] = ()) -> Skeletons:
        """The skeletons at ``rows`` [M] int64 of ``skeletons``, their vocabulary widened by ``known``.

        Raises:
            GraphgenError: a row is out of range.
        """
        first, last = int(rows.min()), int(rows.max())
        if first < 0 or last >= len(skeletons):
            raise GraphgenError(
                f"the generated rows name skeletons {first} to {last}, but there are {len(skeletons)}; "
                "give the data and split they were generated on"
            )
        vocabulary = Vocabulary(tuple(dict.fromkeys((*known, *skeletons.vocabulary.atoms))))
        relabel = torch.tensor([vocabulary.index(*atom) for atom in skeletons.vocabulary.atoms])

        def batch(chosen: Tensor) -> MoleculeBatch:
            found = skeletons.batch(chosen)
            return found._replace(atoms=relabel[found.atoms])

        return cls(batch(rows), batch(torch.unique(rows)), vocabulary)

    def labels(self, generated: Generated) -> Tensor | None:
        """[N] int64 generated labels in the order of ``batch``; None if only their SMILES are known.

        Raises:
            GraphgenError: sizes differ from those of the skeletons, or an atom type is unknown.
        """
        if generated.atoms is None or generated.node_ptr is None:
            return None
        wrong = (generated.node_ptr.diff() != self.batch.graph.ptr.diff()).nonzero()
        if wrong.numel():
            raise misfit(int(wrong[0]), generated, "has another number of atoms than that skeleton")
        place = {name: i for i, name in enumerate(self.vocabulary.names)}
        strange = sorted({generated.names[a] for a in torch.unique(generated.atoms).tolist()} - place.keys())
        if strange:
            raise GraphgenError(
                f"the generated labels {', '.join(strange)} occur neither in the training split nor in the "
                "skeletons; give the data the model was trained on"
            )
        return torch.tensor([place.get(name, -1) for name in generated.names])[generated.atoms]

    def graphs(self, labels: Tensor) -> Iterator[tuple[list[Atom], list[tuple[int, int, int]]]]:
        """What ``codec.decode`` takes of every attempt, from [N] int64 ``labels``: its atoms, and its bonds."""
        atoms = [self.vocabulary.atoms[a] for a in labels.tolist()]
        for (first, last), bonds in zip(pairwise(self.batch.graph.ptr.tolist()), self._bonds, strict=True):
            yield atoms[first:last], bonds

    @cached_property
    def _bonds(self) -> list[list[tuple[int, int, int]]]:
        graph = self.batch.graph
        assert graph.edge_attr is not None, "skeletons carry bond types"
        target = torch.repeat_interleave(torch.arange(graph.num_nodes), graph.rowptr.diff().long())
        once = graph.col < target
        owner = graph.batch[target[once]]
        first = graph.ptr[owner]
        columns = (graph.col[once] - first, target[once] - first, graph.edge_attr[once])
        bonds = list(zip(*(column.tolist() for column in columns), strict=True))
        ends = torch.bincount(owner, minlength=graph.num_graphs).cumsum(0).tolist()
        return [bonds[start:end] for start, end in pairwise([0, *ends])]


def misfit(row: int, generated: Generated, why: str) -> GraphgenError:
    """The error of a generated row that cannot stem from the skeleton it names."""
    assert generated.structures is not None
    return GraphgenError(
        f"generated row {row} names skeleton {int(generated.structures[row])} but {why}; "
        "give the data and split it was generated on, or judge the SMILES alone (--structures none)"
    )
