"""Attention, updates and walks on the complete graphs of molecules, whose pairs have a state of their own."""

from graphgen.ops.pairs.layout import Pairs
from graphgen.ops.reference.pairs import norm_linear, pair_attention, pair_update, pair_walks

__all__ = ["Pairs", "norm_linear", "pair_attention", "pair_update", "pair_walks"]
