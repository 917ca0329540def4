"""Federated multi-target domain adaptation: a server with labels, clients with shifted data and none."""

from graphgen.federated.settings import Settings

__all__ = ["Settings"]
