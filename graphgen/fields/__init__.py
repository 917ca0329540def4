"""Fields f(x, N(x), t): what pushes an atom's state, seen from its neighbourhood."""

from graphgen.fields.neighbourhood import NeighbourhoodField

__all__ = ["NeighbourhoodField"]
