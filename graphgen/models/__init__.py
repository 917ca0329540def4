"""Generative models: a field, a process that uses it, a vocabulary."""

from graphgen.models.checkpoint import load
from graphgen.models.graph_cnf import GraphCNF

__all__ = ["GraphCNF", "load"]
