"""A trained model, ready to use: what ``graphgen.load`` gives a script or a notebook."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphgen import models
from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.molecules.encoded import SPLITS, EncodedMolecules
from graphgen.molecules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from graphgen.generated import Generated
    from graphgen.likelihood import Likelihoods


def load(folder: str | os.PathLike[str]) -> TrainedModel:
    """The model in a folder that ``graphgen train`` or ``graphgen.train.train`` wrote.

    Raises:
        GraphgenError: no model there, damaged files, or a model this version does not know.
    """
    path = Path(folder)
    return TrainedModel(path, models.load(path), checkpoint.read_log(path))


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """A model with what is known of its training.

    Attributes:
        folder: where it is.
        network: the ``torch.nn.Module``; its own methods (``sample``, ``log_prob``, ``loss``) take graphs.
        run: the log of the training; empty if the folder has none.
    """

    folder: Path
    network: Any
    run: Mapping[str, Any]

    @property
    def vocabulary(self) -> Vocabulary:
        """The atom types it knows."""
        return self.network.vocabulary

    @property
    def has_likelihood(self) -> bool:
        """Whether it can say how probable a molecule is."""
        return hasattr(self.network, "log_prob")

    def __repr__(self) -> str:
        data = self.run.get("data", {}).get("name", "unknown data")
        return f"<{self.network.name} in {self.folder}, trained on {data} for {len(self.run.get('epochs', ()))} epochs>"

    def data(self) -> EncodedMolecules:
        """The data set it was trained on: by name, or as it was encoded then.

        Raises:
            GraphgenError: it is not here any more.
        """
        from graphgen.molecules import datasets

        known = self.run.get("data", {})
        name, digest = known.get("name"), known.get("sha256")
        if name is None:
            raise GraphgenError(f"{self.folder}: does not say what it was trained on; name a data set or a file")
        candidates = [datasets.load(name)] if name in datasets.SOURCES else datasets.encoded_before(name, digest)
        for data in candidates:
            if data.source_sha256 == digest and len(data.split("train")) == known.get("train"):
                return data
        raise GraphgenError(
            f"{self.folder}: was trained on {name} (SHA-256 {str(digest)[:12]}...), which is not here as it was then; "
            "name the data set or the file"
        )

    def skeletons(
        self, structures: str | os.PathLike[str] | None = None, split: str = "test", column: str | None = None
    ) -> EncodedMolecules:
        """Molecules whose bonds the model can be given.

        Args:
            structures: data set or file; by default what the model was trained on.
            split: of it. ``test`` is what a model has neither learnt from nor been chosen by.
            column: of the SMILES, if it is a table.

        Raises:
            GraphgenError: there is no such data set, file or split, or the split is empty.
        """
        from graphgen.molecules import datasets

        if split not in SPLITS:
            raise GraphgenError(f"split {split!r}: there are {', '.join(SPLITS)}")
        data = self.data() if structures is None else datasets.load(structures, column)
        part = data.split(split)
        if not len(part):
            raise GraphgenError(
                f"{data.name}: its {split} split is empty ({len(data)} molecules in all); take another split"
            )
        return part

    def generate(
        self,
        n: int = 1000,
        seed: int = 0,
        structures: EncodedMolecules | str | os.PathLike[str] | None = None,
        split: str = "test",
        column: str | None = None,
        batch_size: int = 512,
        steps: int = 20,
        nll_draws: int = 4,
        until_molecules: bool = False,
        device: str = "cpu",
        progress: bool = True,
        start: int = 0,
        temperature: float = 0.0,
    ) -> Generated:
        """Sample atoms on the bonds of real molecules, by default held-out ones of its own data.

        Args:
            n, seed, batch_size, steps, nll_draws, until_molecules, device, start, temperature: as
                :func:`graphgen.generate.generate` has them.
            structures: molecules, or as :meth:`skeletons` takes them, with ``split`` and ``column``.

        Raises:
            GraphgenError: as :meth:`skeletons` and :func:`graphgen.generate.generate`.
        """
        from graphgen.generate import generate

        if not isinstance(structures, EncodedMolecules):
            structures = self.skeletons(structures, split, column)
        draws = nll_draws if self.has_likelihood else 0
        return generate(
            self.network,
            structures,
            n,
            seed,
            batch_size,
            steps,
            device,
            progress,
            start=start,
            until_molecules=until_molecules,
            nll_draws=draws,
            temperature=temperature,
        )

    def likelihood(
        self,
        molecules: EncodedMolecules,
        seed: int = 0,
        draws: int = 4,
        batch_size: int = 512,
        steps: int = 20,
        device: str = "cpu",
        progress: bool = True,
    ) -> Likelihoods:
        """Log-probability of every molecule (nats), as :func:`graphgen.likelihood.log_probabilities` has it.

        Raises:
            GraphgenError: the model has no likelihood, or does not know an atom type.
        """
        from graphgen.likelihood import log_probabilities

        if not self.has_likelihood:
            raise GraphgenError(f"{self.folder}: a {self.network.name} has no likelihood")
        return log_probabilities(self.network, molecules, seed, draws, batch_size, steps, device, progress)
