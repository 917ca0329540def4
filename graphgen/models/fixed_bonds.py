"""What all models of atoms on given bonds share: labels as points, the noise around them, the field, the disk."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields import MESSAGES, NeighbourhoodField
from graphgen.graph import GraphBatch
from graphgen.models.base import Model
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import BOND_TYPES, Vocabulary
from graphgen.ops.noise import Stream

# A point outside its label's cell is drawn again; at the default scale that happens once in a million atoms.
_REDRAWS = 16


class FixedBondModel(Model):
    """Atoms on given bonds, with c numbers per atom for c atom types; label k is the point ``scale * e_k``.

    Args:
        vocabulary: the atom types.
        settings: what the model is made of, beside the vocabulary; they go to disk and into its own constructor again.
            ``field``, ``hidden``, ``layers`` and ``context_layers`` make the
            :class:`~graphgen.fields.NeighbourhoodField`, ``scale`` and ``label_smoothing`` the points.

    Attributes:
        spread, shift: the point of label k is ``spread * e_k + shift``.

    Raises:
        GraphgenError: an unknown field, a label smoothing outside [0, 1), or a scale that is not above 0.
    """

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        super().__init__(vocabulary, **settings)
        scale, smoothing = settings["scale"], settings["label_smoothing"]
        if not 0 <= smoothing < 1 or scale <= 0:
            raise GraphgenError(f"label_smoothing ({smoothing}) must be in [0, 1) and scale ({scale}) above 0")
        if settings["field"] not in MESSAGES:
            raise GraphgenError(f"field {settings['field']!r}: choose one of {', '.join(MESSAGES)}")
        self.spread = scale * (1 - smoothing)
        self.shift = scale * smoothing / len(vocabulary)
        self.field = NeighbourhoodField(
            len(vocabulary),
            len(BOND_TYPES),
            settings["hidden"],
            settings["layers"],
            settings["context_layers"],
            settings["field"],
        )

    @property
    def has_marginals(self) -> bool:
        """Whether its ``marginals`` are those of the labels given the bonds, as its training makes them."""
        return True

    # ---- labels and noise -------------------------------------------------------------------------------------------

    def points(self, atoms: Tensor) -> Tensor:
        """[N, c] the points of labels [N]."""
        one_hot = nn.functional.one_hot(atoms, len(self.vocabulary))
        return one_hot.to(self.dtype) * self.spread + self.shift

    def noise(self, graph: GraphBatch, ids: Tensor, seed: int, stream: Stream, step: int = 0) -> Tensor:
        """[N, c] standard normal."""
        return ops.normal(graph.ptr, len(self.vocabulary), seed, stream, step, ids, self.dtype)

    def draw_labels(self, logits: Tensor, graph: GraphBatch, ids: Tensor, seed: int, temperature: float) -> Tensor:
        """[N] int64 labels: drawn from ``softmax(logits / temperature)``, or the largest one at temperature 0."""
        if temperature == 0:
            return logits.argmax(1)
        below = ops.softmax(logits / temperature).cumsum(1)[:, :-1]
        uniform = ops.uniform(graph.ptr, 1, seed, Stream.LABEL, 0, ids, logits.dtype)
        return (uniform >= below).sum(1)

    def dequantise(
        self, batch: MoleculeBatch, seed: int, step: int = 0, signal: float = 1.0, blur: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Points z [N, c] in the labels' argmax cells, and log q(z | labels) [B], nats.

        q is the normal of deviation ``blur`` around ``signal`` times the labels' points, restricted to their cells.

        Raises:
            GraphgenError: blurred so much that hardly a point lies in its cell.
        """
        centre = self.points(batch.atoms) * signal
        z, outside = centre, torch.ones_like(batch.atoms, dtype=torch.bool)
        for attempt in range(_REDRAWS):
            noise = self.noise(batch.graph, batch.ids, seed, Stream.DEQUANTISE, step * _REDRAWS + attempt)
            z = torch.where(outside.unsqueeze(1), centre + noise * blur, z)
            outside = z.argmax(1) != batch.atoms
            if not bool(outside.any()):
                break
        else:
            raise GraphgenError(
                f"dequantise: scale {self.settings['scale']} leaves almost nothing of a label's cell; raise it"
            )
        sizes = batch.graph.ptr.diff().to(z.dtype)
        log_q = log_normal((z - centre) / blur, batch.graph) - sizes * (math.log(blur) * z.shape[1])
        return z, log_q - sizes * self._log_cell(signal / blur)

    def _log_cell(self, sharpness: float = 1.0) -> float:
        """log of the share of a label's blurred point that lies in its own cell, by quadrature."""
        u = torch.linspace(-12, 12, 4801, dtype=torch.float64)
        density = torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
        others = torch.special.ndtr(u + self.spread * sharpness) ** (len(self.vocabulary) - 1)
        return math.log(float(torch.trapezoid(density * others, u)))


def log_normal(x: Tensor, graph: GraphBatch) -> Tensor:
    """[B] log-density of a standard normal over each graph's nodes."""
    square = x * x
    per_node = ops.linear(square, square.new_ones((square.shape[1], 1)))
    constant = 0.5 * math.log(2 * math.pi) * x.shape[1]
    return ops.segment_reduce(per_node * -0.5 - constant, graph.ptr).squeeze(1)
