"""Generative models: a field, a process that uses it, a vocabulary."""

from __future__ import annotations

import os
from typing import Any

from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.models.base import Model
from graphgen.models.graph_cnf import GraphCNF
from graphgen.models.graph_ddpm import GraphDDPM
from graphgen.models.graph_dfm import GraphDFM
from graphgen.models.graph_ncsn import GraphNCSN
from graphgen.models.graph_sde import GraphSDE
from graphgen.molecules.vocabulary import Vocabulary

__all__ = ["MODELS", "GraphCNF", "GraphDDPM", "GraphDFM", "GraphNCSN", "GraphSDE", "load", "make"]

MODELS: dict[str, type[Model]] = {model.name: model for model in (GraphCNF, GraphSDE, GraphNCSN, GraphDDPM, GraphDFM)}


def make(name: str, vocabulary: Vocabulary, **settings: Any) -> Model:
    """An untrained model by its name.

    Args:
        settings: as its constructor takes them.

    Raises:
        GraphgenError: no such model, a setting it does not have, or one out of range.
    """
    if name not in MODELS:
        raise GraphgenError(f"model {name!r}: choose one of {', '.join(MODELS)}")
    known = MODELS[name].options()
    if unknown := settings.keys() - set(known):
        raise GraphgenError(f"a {name} has no setting {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    return MODELS[name](vocabulary, **settings)


def load(folder: str | os.PathLike[str]) -> Model:
    """The model saved in a folder.

    Raises:
        GraphgenError: no model there, damaged files, or a model this version does not know.
    """
    description, weights = checkpoint.read(folder)
    name = description.get("model")
    if name not in MODELS:
        raise GraphgenError(f"{folder}: model {name!r}, this version knows {', '.join(MODELS)}; update graphgen")
    return MODELS[name].restore(description, weights, str(folder))
