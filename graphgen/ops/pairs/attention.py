"""Attention of atoms to all others of their molecule, biased and gated by their pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.pairs._function import KernelOp, Values
from graphgen.ops.pairs.layout import Pairs
from graphgen.ops.reference import pairs as reference


def _attend(query_key_value: Tensor, bias_gate: Tensor, pairs: Pairs, heads: int) -> Values:
    width = query_key_value.shape[1] // 3
    out = query_key_value.new_empty(query_key_value.shape[0], width)
    logits = bias_gate.new_empty(bias_gate.shape[0], heads)
    parts = map(_native.address, (query_key_value, bias_gate, out, logits))
    _native.call(_C.pair_attention, out, *parts, *_numbers(out, pairs, heads))
    return out, logits


def _pull(tensors: tuple[Any, ...], rest: tuple[Any, ...], grads: Values) -> Any:
    pairs, heads = rest
    found = tuple(map(torch.empty_like, tensors))
    parts = map(_native.address, (*tensors, *grads, *found))
    _native.call(_C.pair_attention_pull, grads[0], *parts, *_numbers(grads[0], pairs, heads))
    return found


def _numbers(out: Tensor, pairs: Pairs, heads: int) -> tuple[Any, ...]:
    return *pairs.addresses, pairs.molecules, out.shape[1], heads, _native.DTYPES[out.dtype]


_pair_attention = KernelOp(reference.pair_attention, _attend, _pull, tensors=2)


def pair_attention(query_key_value: Tensor, bias_gate: Tensor, pairs: Pairs, heads: int) -> tuple[Tensor, Tensor]:
    """Attention of every atom i to the others j of its molecule, never to itself.

    With the bias b and the gate c of the pair t of i and j, head by head,

        L_ij = <q_i, k_j> / sqrt(d) + b_t,    out_i = sum_j softmax_j(L_ij) sigmoid(c_t) v_j.

    Args:
        query_key_value: [N, 3 H] float32, float64 or bfloat16: queries, keys and values, each ``heads`` of width d.
        bias_gate: [T, 2 heads], same dtype: the biases, then the gates.
        pairs: which atoms they are.

    Returns:
        What atoms receive, [N, H], 0 for an atom alone; and L_ij + L_ji of every pair, [T, heads]. On the engine each
        molecule's bits are independent of the others.

    Raises:
        ValueError: shapes or dtypes that do not fit, or heads wider than 128 on the CPU.
        IndexError: a molecule of more than 255 atoms on the CPU.

    Source: Hussain, Zaki and Subramanian, KDD 2022 (edge-augmented attention), equations 2 to 4.
    """
    atoms, kinds = (len(pairs.of_atom), query_key_value.shape[-1]), (len(pairs.first), 2 * heads)
    if heads < 1 or query_key_value.shape != atoms or atoms[1] % (3 * heads):
        raise ValueError(
            f"pair_attention: expected queries, keys and values [{atoms[0]}, 3 H] with H a multiple of {heads} heads, "
            f"got {list(query_key_value.shape)}"
        )
    if bias_gate.shape != kinds or bias_gate.dtype != query_key_value.dtype:
        raise ValueError(
            f"pair_attention: expected biases and gates {list(kinds)} of {query_key_value.dtype}, "
            f"got {list(bias_gate.shape)} of {bias_gate.dtype}"
        )
    out, logits = _pair_attention(query_key_value, bias_gate, pairs, heads)
    return out, logits
