"""Linear maps and two-layer maps of rows brought to mean 0 and variance 1, in one pass over the rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.pairs._function import KernelOp, Values
from graphgen.ops.pairs.layout import Pairs
from graphgen.ops.reference import pairs as reference

_NO_PAIRS = ([0, 0], 0)

# ---- norm_linear ----------------------------------------------------------------------------------------------------


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Values:
    (rows, inner), outer = x.shape, weight.shape[1]
    out = x.new_empty(rows, outer)
    parts = map(_native.address, (x, weight, bias, out))
    _native.call(_C.norm_linear, x, *parts, rows, inner, outer, _native.DTYPES[x.dtype])
    return (out,)


def _linear_pull(tensors: tuple[Any, ...], rest: tuple[Any, ...], grads: Values) -> Any:
    x, weight, bias = tensors
    (grad,), (rows, inner), outer = grads, x.shape, weight.shape[1]
    to_x, normal = torch.empty_like(x), torch.empty_like(x)
    transposed = weight.t().contiguous()
    parts = map(_native.address, (x, transposed, grad, to_x, normal))
    _native.call(_C.norm_linear_pull, x, *parts, rows, inner, outer, _native.DTYPES[x.dtype])
    return to_x, normal.t() @ grad, None if bias is None else grad.sum(0)


_norm_linear = KernelOp(reference.norm_linear, _linear, _linear_pull, tensors=3)


def norm_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``normal(x) @ weight + bias``; normal brings a row to mean 0 and, but for 1e-5, variance 1.

    Args:
        x: [N, K] float32, float64 or bfloat16.
        weight: [K, M], same dtype; columns are outputs.
        bias: [M], same dtype, or None.

    Returns:
        [N, M]; on the engine each row's bits are independent of the other rows.

    Raises:
        ValueError: shapes or dtypes that do not fit, or K above 512 on the CPU.

    Source: layer normalisation, Ba, Kiros and Hinton 2016, whose gain and offset are the weight's and the bias's here.
    """
    _check("norm_linear", x, (weight, (x.shape[-1], None)), (bias, weight.shape[1:]))
    return _norm_linear(x, weight, bias)[0]


# ---- norm_mlp and pair_update ---------------------------------------------------------------------------------------


def _mlp(
    x: Tensor,
    own: Tensor,
    first_bias: Tensor | None,
    ends: Tensor | None,
    logits: Tensor | None,
    of_logits: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    pairs: Pairs | None,
) -> Values:
    out = torch.empty_like(x)
    parts = [*map(_native.address, (x, own, first_bias, ends, logits, of_logits, weight, bias, out))]
    _native.call(_C.norm_mlp, x, parts, *_numbers(x, own, of_logits, pairs))
    return (out,)


def _mlp_pull(tensors: tuple[Any, ...], rest: tuple[Any, ...], grads: Values) -> Any:
    x, own, first_bias, ends, logits, of_logits, weight, bias = tensors
    (pairs,), (grad,) = rest, grads
    to_x, normal = torch.empty_like(x), torch.empty_like(x)
    hidden, to_met = x.new_empty(len(x), own.shape[1]), x.new_empty(len(x), own.shape[1])
    to_ends, to_logits = (None if part is None else torch.empty_like(part) for part in (ends, logits))
    turned = [None if part is None else part.t().contiguous() for part in (own, of_logits, weight)]
    parts = [*map(_native.address, (x, own, first_bias, ends, logits, of_logits, weight, bias, None))]
    more = [*map(_native.address, (*turned, grad, to_x, to_ends, to_logits, normal, hidden, to_met))]
    _native.call(_C.norm_mlp_pull, x, parts, more, *_numbers(x, own, of_logits, pairs))
    return (
        to_x,
        normal.t() @ to_met,
        None if first_bias is None else to_met.sum(0),
        to_ends,
        to_logits,
        None if of_logits is None else logits.t() @ to_met,
        hidden.t() @ grad,
        grad.sum(0),
    )


def _numbers(x: Tensor, own: Tensor, of_logits: Tensor | None, pairs: Pairs | None) -> tuple[Any, ...]:
    addresses, molecules = _NO_PAIRS if pairs is None else (pairs.addresses, pairs.molecules)
    heads = 0 if of_logits is None else of_logits.shape[0]
    return addresses, molecules, x.shape[0], x.shape[1], own.shape[1], heads, _native.DTYPES[x.dtype]


def _reference(
    x: Tensor,
    own: Tensor,
    first_bias: Tensor | None,
    ends: Tensor | None,
    logits: Tensor | None,
    of_logits: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    pairs: Pairs | None,
) -> Tensor:
    if pairs is None:
        return reference.norm_mlp(x, own, first_bias, weight, bias)
    assert ends is not None and logits is not None and of_logits is not None
    return reference.pair_update(x, ends, logits, own, of_logits, weight, bias, pairs)


_norm_mlp = KernelOp(_reference, _mlp, _mlp_pull, tensors=8)


def norm_mlp(x: Tensor, first: Tensor, first_bias: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """``x + silu(normal(x) @ first + first_bias) @ weight + bias``: a transformer's second half of a layer.

    Args:
        x: [N, K] float32, float64 or bfloat16.
        first, first_bias: [K, M] and [M], same dtype; the latter may be None.
        weight, bias: [M, K] and [K], same dtype.

    Returns:
        [N, K]; on the engine each row's bits are independent of the other rows.

    Raises:
        ValueError: shapes or dtypes that do not fit, or K or M above 512 on the CPU.
    """
    wide, inner = x.shape[-1], first.shape[1:]
    _check("norm_mlp", x, (first, (wide, None)), (first_bias, inner), (weight, (*inner, wide)), (bias, (wide,)))
    return _norm_mlp(x, first, first_bias, None, None, None, weight, bias, None)[0]


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
    """``x + silu(met) @ weight + bias`` of every pair's state x, where i and j are its atoms and

        met = normal(x) @ own + ends[i] + ends[j] + logits @ of_logits.

    Args:
        state: [T, K] float32, float64 or bfloat16.
        ends: [N, M] what atoms give to their pairs.
        logits: [T, heads] of the attention, see :func:`pair_attention`.
        own, of_logits: [K, M] and [heads, M].
        weight, bias: [M, K] and [K]. All of the same dtype.
        pairs: which atoms they are.

    Returns:
        [T, K]; on the engine each molecule's bits are independent of the others.

    Raises:
        ValueError: shapes or dtypes that do not fit, or K or M above 512 on the CPU.
    """
    wide, inner, heads = state.shape[-1], own.shape[1:], logits.shape[1:]
    _check(
        "pair_update",
        state,
        (state, (len(pairs.first), wide)),
        (ends, (len(pairs.of_atom), *inner)),
        (logits, (len(state), *heads)),
        (own, (wide, None)),
        (of_logits, (*heads, *inner)),
        (weight, (*inner, wide)),
        (bias, (wide,)),
    )
    return _norm_mlp(state, own, None, ends, logits, of_logits, weight, bias, pairs)[0]


def _check(name: str, x: Tensor, *parts: tuple[Tensor | None, Any]) -> None:
    """Refuse tensors of another dtype or of shapes that are not those given; None is any length."""
    if x.dim() != 2 or not x.shape[1]:
        raise ValueError(f"{name}: expected rows [N, K] of some width K, got {list(x.shape)}")
    for part, shape in parts:
        if part is None:
            continue
        fits = len(part.shape) == len(shape) and all(b in (None, a) for a, b in zip(part.shape, shape, strict=True))
        if not fits or part.dtype != x.dtype:
            raise ValueError(
                f"{name}: expected {['any' if length is None else length for length in shape]} of {x.dtype}, "
                f"got {list(part.shape)} of {part.dtype}"
            )
