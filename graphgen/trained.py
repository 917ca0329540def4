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
    from graphgen.candidates import Candidates
    from graphgen.generated import Generated
    from graphgen.likelihood import Likelihoods


BUNDLED = Path(__file__).parent / "bundled"
"""Small trained models that come with the package, one folder each."""


def find_model(name_or_folder: str | os.PathLike[str]) -> Path:
    """The folder of a model; a name of a bundled one is that unless such a folder is here.

    Raises:
        GraphgenError: there is neither.
    """
    path, bundled = Path(name_or_folder), BUNDLED / str(name_or_folder)
    if path.exists() or len(path.parts) > 1:
        return path
    if (bundled / checkpoint.DESCRIPTION).is_file():
        return bundled
    names = ", ".join(sorted(folder.parent.name for folder in BUNDLED.glob(f"*/{checkpoint.DESCRIPTION}")))
    raise GraphgenError(f"{path}: no such folder, and no bundled model of that name; there are {names}")


def load(name_or_folder: str | os.PathLike[str]) -> TrainedModel:
    """The model in a folder that ``graphgen train`` or ``graphgen.train.train`` wrote, or a bundled one by its name.

    Raises:
        GraphgenError: no model there, damaged files, or a model this version does not know.
    """
    path = find_model(name_or_folder)
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

    @property
    def is_bundled(self) -> bool:
        """Whether it came with the package."""
        return self.folder.parent == BUNDLED

    @property
    def has_marginals(self) -> bool:
        """Whether it can say how probable each label of an atom is, given the bonds alone."""
        return self.network.has_marginals

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
        self, structures: str | os.PathLike[str] = "test", column: str | None = None
    ) -> tuple[EncodedMolecules, str]:
        """Molecules whose bonds the model can be given, and in words whose they are.

        Args:
            structures: ``test``, ``valid`` or ``train``, a split of what the model was trained on (``test`` is what it
                has neither learnt from nor been chosen by); or a data set or a file, all of it or with ``:split``.
            column: of the SMILES, if it is a table.

        Raises:
            GraphgenError: there is no such data set, file or split, or the split is empty.
        """
        from graphgen.molecules import datasets

        if str(structures) in SPLITS:
            try:
                data = self.data()
            except GraphgenError:
                if not self.is_bundled:
                    raise
                return self._stand_in()
            split: str | None = str(structures)
        else:
            name, split = datasets.split_name(structures)
            data = datasets.load(name, column)
        found = datasets.part(data, split)
        return found, f"{data.name}, {f'its {split} split' if split else 'all of it'} ({len(found):,} molecules)"

    def _stand_in(self) -> tuple[EncodedMolecules, str]:
        """Molecules that come with RDKit, of sizes and atoms that the model knows: its own are not here."""
        from graphgen.likelihood import in_vocabulary
        from graphgen.molecules import datasets

        smallest, largest = self.run["data"]["atoms"]
        data = datasets.load("nci")
        fitting = ((data.sizes >= smallest) & (data.sizes <= largest)).nonzero().flatten()
        found, _ = in_vocabulary(data.take(fitting), self.vocabulary)
        return found, (
            f"RDKit's NCI molecules of its {smallest} to {largest} atoms ({len(found):,}, each as often as needed), "
            f"because {self.run['data']['name']} is not here"
        )

    def generate(
        self,
        n: int = 1000,
        seed: int = 0,
        structures: EncodedMolecules | str | os.PathLike[str] | None = None,
        column: str | None = None,
        batch_size: int = 512,
        nll_draws: int = 4,
        until_molecules: bool = False,
        device: str = "cpu",
        progress: bool = True,
        start: int = 0,
        candidates: Candidates | None = None,
        **sampling: Any,
    ) -> Generated:
        """Sample atoms on the bonds of real molecules, by default held-out ones of its own data; or whole molecules.

        Args:
            n, seed, batch_size, nll_draws, until_molecules, device, start, candidates, sampling: as
                :func:`graphgen.generate.generate` has them.
            structures, column: molecules, or as :meth:`skeletons` takes them; None for its test split. A model of
                whole molecules takes none, and neither candidates nor ``nll_draws``.

        Raises:
            GraphgenError: as :meth:`skeletons` and :func:`graphgen.generate.generate`, or structures or candidates for
                a model of whole molecules.
        """
        from graphgen.generate import generate, generate_whole

        if self.network.samples_bonds:
            if structures is not None or column is not None or candidates is not None:
                raise GraphgenError(
                    f"a {self.network.name} makes whole molecules, one an attempt: leave out structures and candidates"
                )
            return generate_whole(
                self.network, n, seed, batch_size, device, progress, start, until_molecules, **sampling
            )
        if not isinstance(structures, EncodedMolecules):
            structures, _ = self.skeletons("test" if structures is None else structures, column)
        draws = nll_draws if self.has_likelihood else 0
        return generate(
            self.network,
            structures,
            n,
            seed,
            batch_size,
            device,
            progress,
            start,
            until_molecules,
            draws,
            candidates,
            **sampling,
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
        trace: str = "hutchinson",
    ) -> Likelihoods:
        """Log-probability of every molecule (nats), as :func:`graphgen.likelihood.log_probabilities` has it.

        Raises:
            GraphgenError: the model has no likelihood, or does not know an atom type.
        """
        from graphgen.likelihood import log_probabilities

        if not self.has_likelihood:
            raise GraphgenError(f"{self.folder}: a {self.network.name} has no likelihood")
        return log_probabilities(self.network, molecules, seed, draws, batch_size, steps, device, progress, trace)
