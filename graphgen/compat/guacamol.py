"""A trained model as GuacaMol's distribution-learning benchmarks ask for one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from graphgen.molecules.encoded import EncodedMolecules
from graphgen.trained import TrainedModel


def _base() -> Any:
    try:
        return import_module("guacamol.distribution_matching_generator").DistributionMatchingGenerator
    except ImportError:
        return object


_Base: Any = _base()


class Generator(_Base):
    """Hands out the attempts of a model one after the other; no two calls give the same ones.

    ``assess_distribution_learning(Generator(graphgen.load("runs/x")), chembl_training_file=...)`` runs the suite.
    A graph CNF is given bonds: say beside its scores whose. A model of whole molecules takes none.

    Args:
        model: what :func:`graphgen.load` returns.
        structures: molecules, or as :meth:`~graphgen.trained.TrainedModel.skeletons` takes them.
        seed, batch_size, device: as :meth:`~graphgen.trained.TrainedModel.generate` takes them.

    Raises:
        GraphgenError: as :meth:`~graphgen.trained.TrainedModel.skeletons`.
    """

    def __init__(
        self,
        model: TrainedModel,
        structures: EncodedMolecules | str | None = None,
        seed: int = 0,
        batch_size: int = 512,
        device: str = "cpu",
    ) -> None:
        self.model, self.seed, self.batch_size, self.device = model, seed, batch_size, device
        if not isinstance(structures, EncodedMolecules) and not model.network.samples_bonds:
            structures, _ = model.skeletons("test" if structures is None else structures)
        self.structures = structures
        self.handed_out = 0

    def generate(self, number_samples: int) -> list[str]:
        """The next attempts as SMILES; one that gave no molecule is "", which GuacaMol counts as invalid."""
        found = self.model.generate(
            number_samples,
            self.seed,
            self.structures,
            batch_size=self.batch_size,
            nll_draws=0,
            device=self.device,
            progress=False,
            start=self.handed_out,
        )
        self.handed_out += number_samples
        return [smiles or "" for smiles in found.smiles]
