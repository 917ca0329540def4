"""Generative models: a field, a process that uses it, a vocabulary."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.models.base import Model
from graphgen.models.graph_cnf import GraphCNF
from graphgen.models.graph_ddpm import GraphDDPM
from graphgen.models.graph_dfm import GraphDFM
from graphgen.models.graph_ncsn import GraphNCSN
from graphgen.models.graph_nvp import GraphNVP
from graphgen.models.graph_sde import GraphSDE
from graphgen.models.graph_vae import GraphVAE
from graphgen.models.joint_ddpm import JointDDPM
from graphgen.models.joint_ncsn import JointNCSN
from graphgen.models.joint_sde import JointSDE
from graphgen.models.mpgvae import MPGVAE
from graphgen.molecules.vocabulary import Vocabulary

__all__ = [
    "JOINT",
    "MODELS",
    "MPGVAE",
    "GraphCNF",
    "GraphDDPM",
    "GraphDFM",
    "GraphNCSN",
    "GraphNVP",
    "GraphSDE",
    "GraphVAE",
    "JointDDPM",
    "JointNCSN",
    "JointSDE",
    "load",
    "make",
]

MODELS: dict[str, type[Model]] = {
    model.name: model for model in (GraphCNF, GraphSDE, GraphNCSN, GraphDDPM, GraphDFM, GraphNVP, MPGVAE, GraphVAE)
}
JOINT: dict[str, type[Model]] = {model.name: model for model in (JointSDE, JointNCSN, JointDDPM)}
"""Those that have the name of one on given bonds, and the setting ``structure="joint"``."""


def make(name: str, vocabulary: Vocabulary, **settings: Any) -> Model:
    """An untrained model by its name.

    Args:
        settings: as its constructor takes them; of the names in :data:`JOINT` also ``structure``, "given" (the bonds
            are) or "joint" (atoms and bonds are noised together).

    Raises:
        GraphgenError: no such model, a setting it does not have, or one out of range.
    """
    if name not in MODELS:
        raise GraphgenError(f"model {name!r}: choose one of {', '.join(MODELS)}")
    if name in JOINT and settings.get("structure") == "given":
        del settings["structure"]
    model = _named(name, settings)
    known = model.options()
    if unknown := settings.keys() - set(known):
        raise GraphgenError(f"a {name} has no setting {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    return model(vocabulary, **settings)


def load(folder: str | os.PathLike[str]) -> Model:
    """The model saved in a folder.

    Raises:
        GraphgenError: no model there, damaged files, or a model this version does not know.
    """
    description, weights = checkpoint.read(folder)
    name = description.get("model")
    if name not in MODELS:
        raise GraphgenError(f"{folder}: model {name!r}, this version knows {', '.join(MODELS)}; update graphgen")
    return _named(name, description.get("settings", {})).restore(description, weights, str(folder))


def _named(name: str, settings: Mapping[str, Any]) -> type[Model]:
    return JOINT[name] if name in JOINT and "structure" in settings else MODELS[name]
