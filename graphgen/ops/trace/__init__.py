"""The divergence of a field, per graph."""

from graphgen.ops.trace._divergence import divergence

__all__ = ["divergence"]
