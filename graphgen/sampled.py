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

    Returns:
        Molecules whose name says how many attempts they took.

    Raises:
        GraphgenError: the model makes no bonds, or hardly any attempt is a molecule of one piece.
    """
    if not model.network.samples_bonds:
        raise GraphgenError(f"{model.folder}: a {model.network.name} makes no bonds; give a model of whole molecules")
    encoder, found, tried = Encoder(), 0, 0
    while found < n:
        if tried >= 100 * n:
            raise GraphgenError(
                f"{model.folder}: only {found} of {tried} attempts are whole molecules; train it longer"
            )
        made = model.generate(max(n - found, 16), seed, nll_draws=0, start=tried, device=device, progress=progress)
        for smiles in made.smiles:
            if found < n:
                tried += 1
                found += add_skeleton(encoder, smiles)
    return encoder.finish(f"molecules sampled by {model.folder} (in {tried:,} attempts)")


def add_skeleton(encoder: Encoder, smiles: str | None) -> bool:
    """Whether an attempt gave a skeleton, which is then among the encoder's molecules."""
    from graphgen.molecules.codec import encode_with_smiles, parse

    if smiles is None:
        return False
    try:
        encoder.add(*encode_with_smiles(parse(smiles)))
    except ValueError:
        return False
    return True
