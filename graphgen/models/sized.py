"""How many atoms molecules have, which a model of whole molecules draws first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.models.base import Model
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers.discrete_flow import draw

MOST_ATOMS = 255


class SizedModel(Model):
    """A model of molecules of as many atoms as the training data's have.

    Args: as :class:`Model`.

    Attributes:
        size_counts: [256] int64, how many training molecules have so many atoms.
    """

    samples_bonds = True

    size_counts: Tensor

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        super().__init__(vocabulary, **settings)
        self.register_buffer("size_counts", torch.zeros(MOST_ATOMS + 1, dtype=torch.int64))

    def fit_prior(self, data: EncodedMolecules) -> None:
        """Take sizes from training data.

        Raises:
            GraphgenError: other atom types than the model's, or more atoms than a complete graph is made for.
        """
        if data.vocabulary != self.vocabulary:
            raise GraphgenError(f"{data.name}: has other atom types than the model; make the model for its vocabulary")
        sizes = data.sizes
        if len(sizes) and int(sizes.max()) > MOST_ATOMS:
            raise GraphgenError(
                f"{data.name}: has a molecule of {int(sizes.max())} atoms, and {self.name}, which looks at all pairs, "
                f"takes at most {MOST_ATOMS}; leave larger ones out"
            )
        self.size_counts.copy_(torch.bincount(sizes, minlength=MOST_ATOMS + 1))

    def draw_sizes(self, ids: Tensor, seed: int, least: int = 0) -> Tensor:
        """[B] int64 numbers of atoms, with the shares of the training data's molecules of at least so many.

        Raises:
            GraphgenError: it has seen no data, or none so large.
        """
        self._check_sizes()
        counts = self.size_counts.double()
        if not bool(counts[least:].any()):
            raise GraphgenError(
                f"a scaffold of {least} atoms is larger than any training molecule "
                f"({int(self.size_counts.nonzero().max())} atoms at most); take a smaller one"
            )
        counts[:least] = 0
        one_each = torch.arange(len(ids) + 1, device=ids.device)
        uniform = ops.uniform(one_each, 1, seed, Stream.SIZE, 0, ids, torch.float64)
        return draw(counts.expand(len(ids), -1), uniform.squeeze(1))

    def log_prob_of_sizes(self, sizes: Tensor) -> Tensor:
        """[B] float64 log-probability, nats, that :meth:`draw_sizes` gives these; -inf where training has none.

        Raises:
            GraphgenError: it has seen no data.
        """
        self._check_sizes()
        counts = self.size_counts.double()
        known = torch.where(sizes <= MOST_ATOMS, counts[sizes.clamp(max=MOST_ATOMS)], 0.0)
        return (known / counts.sum()).log()

    def _check_sizes(self) -> None:
        if not bool(self.size_counts.any()):
            raise GraphgenError(f"this {self.name} does not know how large molecules are; train it, or fit_prior(data)")
