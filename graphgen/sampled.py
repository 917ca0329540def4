"""Skeletons from a model of whole molecules, for the models that need bonds given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.molecules.encoded import EncodedMolecules, Encoder

if TYPE_CHECKING:
    from graphgen.trained import TrainedModel


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a trained model is there."""
    return (Path(path) / checkpoint.DESCRIPTION).is_file()


def sampled(model: TrainedModel, n: int, seed: int = 0, device: str = "cpu", progress: bool = True) -> EncodedMolecules:
    """n skeletons: the molecules of a model, without those in several fragments or with radicals.

    Args:
        model: of whole molecules; attempt k is that of its own ``generate`` with this seed.

    Raises:
        GraphgenError: the model makes no bonds, or hardly any attempt is a molecule of one piece.
    """
    from graphgen.molecules.codec import encode_with_smiles, parse

    if not model.network.samples_bonds:
        raise GraphgenError(f"{model.folder}: a {model.network.name} makes no bonds; give a model of whole molecules")
    encoder, found, tried = Encoder(), 0, 0
    while found < n:
        if tried >= 100 * n:
            raise GraphgenError(
                f"{model.folder}: only {found} of {tried} attempts are whole molecules; train it longer"
            )
        made = model.generate(max(n - found, 16), seed, nll_draws=0, start=tried, device=device, progress=progress)
        tried += len(made)
        for smiles in made.smiles:
            if smiles is None or found == n:
                continue
            try:
                encoder.add(*encode_with_smiles(parse(smiles)))
            except ValueError:
                continue
            found += 1
    return encoder.finish(f"molecules sampled by {model.folder}")
