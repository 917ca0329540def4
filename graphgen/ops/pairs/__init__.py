"""Attention, updates and walks on the complete graphs of molecules, whose pairs have a state of their own."""

from graphgen.ops.pairs.attention import pair_attention
from graphgen.ops.pairs.connected import pair_connected
from graphgen.ops.pairs.layout import Pairs
from graphgen.ops.pairs.norm import norm_linear, norm_mlp, pair_update
from graphgen.ops.pairs.walks import pair_walks

__all__ = ["Pairs", "norm_linear", "norm_mlp", "pair_attention", "pair_connected", "pair_update", "pair_walks"]
