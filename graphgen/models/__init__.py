"""Generative models: a field, a process that uses it, a vocabulary."""

from __future__ import annotations

import os

from graphgen.errors import GraphgenError
from graphgen.models import checkpoint
from graphgen.models.fixed_bonds import FixedBondModel
from graphgen.models.graph_cnf import GraphCNF
from graphgen.models.graph_ddpm import GraphDDPM
from graphgen.models.graph_ncsn import GraphNCSN

__all__ = ["MODELS", "GraphCNF", "GraphDDPM", "GraphNCSN", "load"]

MODELS: dict[str, type[FixedBondModel]] = {model.name: model for model in (GraphCNF, GraphNCSN, GraphDDPM)}


def load(folder: str | os.PathLike[str]) -> FixedBondModel:
    """The model saved in a folder.

    Raises:
        GraphgenError: no model there, damaged files, or a model this version does not know.
    """
    description, weights = checkpoint.read(folder)
    name = description.get("model")
    if name not in MODELS:
        raise GraphgenError(f"{folder}: model {name!r}, this version knows {', '.join(MODELS)}; update graphgen")
    return MODELS[name].restore(description, weights, str(folder))
