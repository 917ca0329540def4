"""Rules that label a given skeleton without learning. A model that does no better has learned nothing.

Bonds and their orders come from the skeleton; the frequencies behind the rules are counted on a training
split. Samples follow these raw frequencies. Probabilities have one count added to every atom type, so that a
held-out label is never impossible. Needs no RDKit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.molecules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch

_MOLECULES_AT_ONCE = 16_384


class Control(Protocol):
    """A rule that puts atom labels on the N nodes of a batch of skeletons."""

    name: str
    definition: str

    def sample(self, batch: MoleculeBatch, seed: int) -> Tensor:
        """[N] int64 labels; the same for the same batch and seed."""
        ...


class TrueLabels:
    """The labels the skeletons really have: the ceiling of every validity column."""

    name = "true labels"
    definition = "the labels the skeletons really have; the ceiling of the validity columns"

    def sample(self, batch: MoleculeBatch, seed: int) -> Tensor:
        return batch.atoms


class OneLabel:
    """One label everywhere. It has no likelihood: every other label would be impossible."""

    def __init__(self, label: int, label_name: str) -> None:
        self.label = label
        self.name = f"all {label_name}"
        self.definition = f"{label_name} on every atom, the most frequent label; it has no likelihood"

    def sample(self, batch: MoleculeBatch, seed: int) -> Tensor:
        return torch.full((batch.graph.num_nodes,), self.label)


class FrequencyTable:
    """Labels drawn independently, with frequencies that depend on a context of the atom.

    Args:
        name, definition: how a report calls and explains the rule.
        context: from a graph to the [N] int64 row of ``counts`` for each node.
        counts: [C, A] float64 frequency of label a in context c. Every row has a positive sum.
    """

    def __init__(self, name: str, definition: str, context: Callable[[GraphBatch], Tensor], counts: Tensor) -> None:
        self.name = name
        self.definition = definition
        self._context = context
        self._counts = counts

    def predict_proba(self, batch: MoleculeBatch) -> Tensor:
        """[N, A] float64 probabilities with one count added to every label; rows sum to 1."""
        smoothed = self._counts + 1
        return (smoothed / smoothed.sum(1, keepdim=True))[self._context(batch.graph)]

    def sample(self, batch: MoleculeBatch, seed: int) -> Tensor:
        """[N] int64 labels, drawn with the raw frequencies."""
        generator = torch.Generator().manual_seed(seed)
        reached = self._counts.cumsum(1)[self._context(batch.graph)]
        at = torch.rand(len(reached), generator=generator, dtype=torch.float64) * reached[:, -1]
        # Sums of counts are exact, so a label without counts spans nothing and is never drawn.
        return (reached <= at[:, None]).sum(1)


def bond_order_sums(graph: GraphBatch) -> Tensor:
    """[N] int64, sum of the orders of each node's bonds. ``graph`` has both directions of every bond."""
    assert graph.edge_attr is not None, "skeletons carry bond types"
    total = torch.zeros(graph.num_edges + 1, dtype=torch.int64)
    torch.cumsum(graph.edge_attr.long() + 1, 0, out=total[1:])
    return total[graph.rowptr].diff()


def fit(train: EncodedMolecules, vocabulary: Vocabulary | None = None) -> list[Control]:
    """The controls of a training split.

    True labels, one label, iid marginal, marginal capped by valence, look-up by degree and bond-order sum.

    Args:
        train: the split whose atoms are counted.
        vocabulary: what the labels are indices into. It holds all atom types of ``train``, whose own
            vocabulary it is by default.

    Raises:
        ValueError: ``train`` has no molecules.
    """
    vocabulary = vocabulary or train.vocabulary
    counts, width = _count(train, vocabulary)
    marginal = counts.sum((0, 1))
    types = marginal.numel()
    most = int(marginal.argmax())
    seen = counts.sum(0) > 0
    largest = torch.where(seen, torch.arange(width)[:, None], -1).amax(0)
    # A sum beyond every cap still needs some label: those that carry most.
    within = torch.arange(width + 1)[:, None].clamp(max=int(largest.max())) <= largest
    lookup = torch.zeros(counts.shape[0] + 1, width + 1, types, dtype=torch.float64)
    lookup[:-1, :-1] = counts
    lookup[lookup.sum(2) == 0] = marginal

    def order_sum(graph: GraphBatch) -> Tensor:
        return bond_order_sums(graph).clamp(max=width)

    def degree_and_order_sum(graph: GraphBatch) -> Tensor:
        degree = graph.rowptr.long().diff().clamp(max=lookup.shape[0] - 1)
        return degree * lookup.shape[1] + order_sum(graph)

    return [
        TrueLabels(),
        OneLabel(most, vocabulary.names[most]),
        FrequencyTable(
            "iid marginal",
            "labels drawn independently from their shares in the training split",
            lambda graph: torch.zeros(graph.num_nodes, dtype=torch.int64),
            marginal[None],
        ),
        FrequencyTable(
            "valence-capped",
            "iid marginal among the labels that some training atom has at an equal or larger bond-order sum",
            order_sum,
            marginal * within,
        ),
        FrequencyTable(
            "look-up",
            "labels drawn from their shares among training atoms of equal number of bonds and bond-order sum",
            degree_and_order_sum,
            lookup.flatten(0, 1),
        ),
    ]


def _count(train: EncodedMolecules, vocabulary: Vocabulary) -> tuple[Tensor, int]:
    """Counts of the training atoms, float64 [degrees, bond-order sums, A], and the second of these sizes."""
    types = len(vocabulary)
    relabel = torch.tensor([vocabulary.index(*atom) for atom in train.vocabulary.atoms], dtype=torch.int64)
    cells: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(train), _MOLECULES_AT_ONCE):
        batch = train.batch(torch.arange(start, min(start + _MOLECULES_AT_ONCE, len(train))))
        cells.append((batch.graph.rowptr.long().diff(), bond_order_sums(batch.graph), relabel[batch.atoms]))
    if not cells:
        raise ValueError("the training split has no molecules to count")
    degree, order_sum, atoms = (torch.cat(column) for column in zip(*cells, strict=True))
    degrees, width = int(degree.max()) + 1, int(order_sum.max()) + 1
    flat = torch.bincount((degree * width + order_sum) * types + atoms, minlength=degrees * width * types)
    return flat.double().view(degrees, width, types), width
