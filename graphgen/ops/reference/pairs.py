"""Ops on all pairs of atoms in plain torch, on batches padded to their largest molecule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from graphgen.ops.pairs import Pairs

_EPSILON = 1e-5


def norm_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See :func:`graphgen.ops.norm_linear`."""
    normal = torch.nn.functional.layer_norm(x, x.shape[1:], eps=_EPSILON)
    return normal @ weight if bias is None else normal @ weight + bias


def norm_mlp(x: Tensor, first: Tensor, first_bias: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`graphgen.ops.norm_mlp`."""
    return x + torch.nn.functional.silu(norm_linear(x, first, first_bias)) @ weight + bias


def pair_attention(query_key_value: Tensor, bias_gate: Tensor, pairs: Pairs, heads: int) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.pair_attention`."""
    (count, most), place, upper, lower, visible = pairs.padded
    width = query_key_value.shape[1] // 3
    atoms = query_key_value.new_zeros(count * most, 3 * width).index_copy(0, place, query_key_value)
    query, key, value = atoms.view(count, most, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    both = torch.cat((upper, lower))
    dense = bias_gate.new_zeros(count * most * most, 2 * heads).index_copy(0, both, bias_gate.repeat(2, 1))
    bias, gate = dense.view(count, most, most, 2 * heads).permute(0, 3, 1, 2).chunk(2, 1)
    seen = visible.unsqueeze(1)
    logits = query @ key.transpose(2, 3) / math.sqrt(width // heads) + bias
    # Not minus infinity, which would leave a lone atom, that sees nobody, without a number.
    shares = logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(3) * gate.sigmoid() * seen
    received = (shares @ value).transpose(1, 2).reshape(count * most, width)[place]
    flat = logits.permute(0, 2, 3, 1).reshape(-1, heads)
    return received, flat[upper] + flat[lower]


def pair_update(
    state: Tensor,
    ends: Tensor,
    logits: Tensor,
    own: Tensor,
    of_logits: Tensor,
    weight: Tensor,
    bias: Tensor,
    pairs: Pairs,
) -> Tensor:
    """See :func:`graphgen.ops.pair_update`."""
    met = norm_linear(state, own) + logits @ of_logits + ends[pairs.first] + ends[pairs.second]
    return state + torch.nn.functional.silu(met) @ weight + bias


def pair_walks(bonded: Tensor, pairs: Pairs, length: int) -> tuple[Tensor, Tensor]:
    """See :func:`graphgen.ops.pair_walks`."""
    (count, most), place, upper, lower, _ = pairs.padded
    both = torch.cat((upper, lower))
    adjacent = bonded.new_zeros(count * most * most).index_copy(0, both, bonded.repeat(2)).view(count, most, most)
    root = adjacent.sum(2).clamp(min=1).rsqrt()
    step = adjacent * root.unsqueeze(2) * root.unsqueeze(1)
    walks, walk = [], step
    for k in range(length):
        walk = walk if k == 0 else walk @ step
        walks.append(walk)
    if not walks:
        return bonded.new_zeros(len(place), 0), bonded.new_zeros(len(upper), 0)
    every = torch.stack(walks, 3)
    returns = every.diagonal(dim1=1, dim2=2).transpose(1, 2).reshape(-1, length)[place]
    return returns, every.reshape(-1, length)[upper]
