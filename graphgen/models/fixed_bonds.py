"""What all models of atoms on given bonds share: labels as points, the noise around them, the field, the disk."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields import NeighbourhoodField
from graphgen.graph import GraphBatch
from graphgen.models import checkpoint
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import BOND_TYPES, Vocabulary
from graphgen.ops.noise import Stream


class FixedBondModel(nn.Module):
    """Atoms on given bonds, with c numbers per atom for c atom types; label k is the point ``scale * e_k``.

    Args:
        vocabulary: the atom types.
        settings: what the model is made of, beside the vocabulary; they go to disk and into its own constructor again.
            ``field``, ``hidden``, ``layers`` and ``context_layers`` make the
            :class:`~graphgen.fields.NeighbourhoodField`, ``scale`` and ``label_smoothing`` the points.

    Attributes:
        spread, shift: the point of label k is ``spread * e_k + shift``.

    Raises:
        GraphgenError: a label smoothing outside [0, 1), or a scale that is not above 0.
    """

    name: ClassVar[str]

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        super().__init__()
        scale, smoothing = settings["scale"], settings["label_smoothing"]
        if not 0 <= smoothing < 1 or scale <= 0:
            raise GraphgenError(f"label_smoothing ({smoothing}) must be in [0, 1) and scale ({scale}) above 0")
        self.vocabulary, self.settings = vocabulary, settings
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

    @classmethod
    def options(cls) -> list[str]:
        """Names of the settings that its constructor takes."""
        return [name for name in inspect.signature(cls).parameters if name != "vocabulary"]

    # ---- labels and noise -------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights, and so of the states."""
        return self.field.out.weight.dtype

    def points(self, atoms: Tensor) -> Tensor:
        """[N, c] the points of labels [N]."""
        one_hot = nn.functional.one_hot(atoms, len(self.vocabulary))
        return one_hot.to(self.dtype) * self.spread + self.shift

    def noise(self, graph: GraphBatch, ids: Tensor, seed: int, stream: Stream, step: int = 0) -> Tensor:
        """[N, c] standard normal."""
        return ops.normal(graph.ptr, len(self.vocabulary), seed, stream, step, ids, self.dtype)

    def times(self, batch: MoleculeBatch, seed: int, step: int) -> Tensor:
        """[B] uniform in (0, 1): when a training step looks at each molecule."""
        one_each = torch.arange(batch.graph.num_graphs + 1, device=batch.graph.device)
        return ops.uniform(one_each, 1, seed, Stream.TIME, step, batch.ids, self.dtype).squeeze(1)

    def draw_labels(self, logits: Tensor, graph: GraphBatch, ids: Tensor, seed: int, temperature: float) -> Tensor:
        """[N] int64 labels: drawn from ``softmax(logits / temperature)``, or the largest one at temperature 0."""
        if temperature == 0:
            return logits.argmax(1)
        below = ops.softmax(logits / temperature).cumsum(1)[:, :-1]
        uniform = ops.uniform(graph.ptr, 1, seed, Stream.LABEL, 0, ids, logits.dtype)
        return (uniform >= below).sum(1)

    # ---- disk -------------------------------------------------------------------------------------------------------

    def save(self, folder: Any) -> None:
        """Write the model to a folder as safetensors and JSON."""
        description = {"model": self.name, "settings": self.settings, "vocabulary": self.vocabulary.to_json()}
        checkpoint.write(folder, description, self.state_dict())

    @classmethod
    def restore(cls, description: Mapping[str, Any], weights: Mapping[str, Tensor], where: str) -> Self:
        """The model of a description and weights read from `where`."""
        try:
            model = cls(Vocabulary.from_json(description["vocabulary"]), **description["settings"])
            model.load_state_dict(weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise GraphgenError(
                f"{where}: the model's description and weights do not fit together ({reason}); train or copy it again"
            ) from None
        return model.eval()
