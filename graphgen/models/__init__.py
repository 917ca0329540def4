"""Generative models: a field, a process that uses it, a vocabulary."""

from __future__ import annotations

import os

from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.models.graph_cnf import GraphCNF

__all__ = ["MODELS", "GraphCNF", "load"]

MODELS = {model.name: model for model in (GraphCNF,)}


def load(folder: str | os.PathLike[str]) -> GraphCNF:
    """The model saved in a folder.

    Raises:
        GraphgenError: no model there, damaged files, or a model this version does not know.
    """
    description, weights = checkpoint.read(folder)
    name = description.get("model")
    if name not in MODELS:
        raise GraphgenError(f"{folder}: model {name!r}, this version knows {', '.join(MODELS)}; update graphgen")
    return MODELS[name].restore(description, weights, str(folder))
