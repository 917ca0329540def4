"""What every model is: a vocabulary, settings, weights, and how they go to disk."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream


class Model(nn.Module):
    """A generative model of molecules.

    Args:
        vocabulary: the atom types.
        settings: what the model is made of, beside the vocabulary; they go to disk and into its own constructor again.

    Attributes:
        samples_bonds: whether it makes whole molecules, or atoms on bonds that are given.
        has_marginals: whether it has ``marginals`` of the labels given the bonds, as its training makes them.
    """

    name: ClassVar[str]
    samples_bonds: ClassVar[bool] = False

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        super().__init__()
        self.vocabulary, self.settings = vocabulary, settings

    @classmethod
    def options(cls) -> list[str]:
        """Names of the settings that its constructor takes."""
        return [name for name in inspect.signature(cls).parameters if name != "vocabulary"]

    @property
    def has_marginals(self) -> bool:
        return False

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return next(self.parameters()).dtype

    def times(self, batch: MoleculeBatch, seed: int, step: int) -> Tensor:
        """[B] uniform in [0, 1): when a training step looks at each molecule."""
        one_each = torch.arange(batch.graph.num_graphs + 1, device=batch.graph.device)
        return ops.uniform(one_each, 1, seed, Stream.TIME, step, batch.ids, self.dtype).squeeze(1)

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
