"""Fields f(x, N(x), t): what pushes an atom's state, seen from its neighbourhood."""

from graphgen.fields.neighbourhood import MESSAGES, NeighbourhoodField
from graphgen.fields.pair import PairField

__all__ = ["MESSAGES", "NeighbourhoodField", "PairField"]
