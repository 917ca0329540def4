"""What models of whole molecules share: the field of atoms and pairs, and what they know of the data beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphgen.errors import GraphgenError
from graphgen.fields.pair import PairField
from graphgen.graph import GraphBatch
from graphgen.models.sized import SizedModel
from graphgen.molecules.complete import PAIR_TYPES, CompleteGraphs
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops import Pairs

BOND_WEIGHT = 5.0  # of the pairs in a loss (Vignac et al. 2023)
_COUNTED_AT_ONCE = 4096


class WholeMoleculeModel(SizedModel):
    """Atoms and bonds together, of as many atoms as the training data's molecules have.

    Args:
        vocabulary: the atom types.
        settings: what the model is made of.

    Attributes:
        atom_shares, pair_shares: of the labels in the training data; equal shares before it has seen any.
    """

    atom_shares: Tensor
    pair_shares: Tensor

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        super().__init__(vocabulary, **settings)
        types, kinds = len(vocabulary), len(PAIR_TYPES)
        self.register_buffer("atom_shares", torch.full((types,), 1 / types))
        self.register_buffer("pair_shares", torch.full((kinds,), 1 / kinds))

    def fit_prior(self, data: EncodedMolecules) -> None:
        """Take sizes and shares of labels from training data; a type that does not occur counts once.

        Raises:
            GraphgenError: other atom types than the model's, or more atoms than a complete graph is made for.
        """
        super().fit_prior(data)
        sizes = data.sizes
        atoms = torch.zeros(len(self.vocabulary), dtype=torch.int64)
        pairs = torch.zeros(len(PAIR_TYPES), dtype=torch.int64)
        for indices in torch.arange(len(data)).split(_COUNTED_AT_ONCE):
            batch = data.batch(indices)
            assert batch.graph.edge_attr is not None, "a batch of molecules has bond types"
            atoms += torch.bincount(batch.atoms, minlength=len(atoms))
            pairs[1:] += torch.bincount(batch.graph.edge_attr, minlength=len(pairs) - 1)
        pairs[0] = (sizes * (sizes - 1)).sum() - pairs.sum()
        pairs //= 2  # a batch has both directions
        for share, counts in ((self.atom_shares, atoms), (self.pair_shares, pairs)):
            share.copy_(counts.clamp(min=1) / counts.clamp(min=1).sum())


class PairFieldModel(WholeMoleculeModel):
    """Whole molecules by a field of atoms and pairs.

    Args:
        vocabulary: the atom types.
        extra_states: 1 if tokens have a mask state beside their labels, 0 if not.
        more: numbers that the field gives beside the logits of labels.
        decidable: whether the field is told which labels are decided.
        settings: ``hidden``, ``pair_hidden``, ``layers``, ``heads`` and the number of ``conditions`` make the
            :class:`~graphgen.fields.PairField`.

    Raises:
        GraphgenError: heads that do not divide the width.
    """

    def __init__(
        self, vocabulary: Vocabulary, extra_states: int = 0, more: int = 0, decidable: bool = False, **settings: Any
    ) -> None:
        super().__init__(vocabulary, **settings)
        hidden, heads = settings["hidden"], settings["heads"]
        if heads < 1 or hidden % heads:
            raise GraphgenError(f"heads ({heads}) must divide hidden ({hidden})")
        types, kinds = len(vocabulary), len(PAIR_TYPES)
        self.field = PairField(
            types,
            types + extra_states,
            kinds + extra_states,
            hidden,
            settings["pair_hidden"],
            settings["layers"],
            heads,
            more=more,
            conditions=len(settings.get("conditions", ())),
            decidable=decidable,
        )


def cross_entropy(end: CompleteGraphs, atom_logits: Tensor, pair_logits: Tensor) -> Tensor:
    """Of the labels given logits [N, c] and [T, 4], nats: per atom, plus 5 times that per pair."""
    of_pairs = nn.functional.cross_entropy(pair_logits, end.pairs, reduction="sum") / max(len(end.pairs), 1)
    return nn.functional.cross_entropy(atom_logits, end.atoms) + BOND_WEIGHT * of_pairs


def frames(
    end: CompleteGraphs, times: Sequence[float], laws: Sequence[tuple[Tensor, Tensor]]
) -> tuple[GraphBatch, list[Frame]]:
    """The complete graphs of molecules, and what is thought of their atoms [N, c] and pairs [T, 4] at some times."""
    tokens = Pairs(end.ptr)
    edges = torch.stack((torch.cat((tokens.first, tokens.second)), torch.cat((tokens.second, tokens.first))))
    number = torch.arange(edges.shape[1] // 2, device=edges.device).repeat(2)
    graph = GraphBatch.from_edge_index(edges, len(end.atoms), edge_attr=number, ptr=end.ptr)
    return graph, [Frame(time, *(a, p[graph.edge_attr])) for time, (a, p) in zip(times, laws, strict=True)]
