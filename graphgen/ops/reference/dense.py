"""Dense node-wise ops in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See :func:`graphgen.ops.linear`."""
    return x @ weight if bias is None else x @ weight + bias


def activation(x: Tensor, kind: str = "silu") -> Tensor:
    """See :func:`graphgen.ops.activation`."""
    if kind == "silu":
        return x * torch.sigmoid(x)
    if kind == "tanh":
        return torch.tanh(x)
    if kind == "relu":
        return torch.relu(x)
    if kind == "softplus":
        return torch.nn.functional.softplus(x, threshold=40)  # past torch's own threshold float64 loses digits
    raise ValueError(f"activation: expected 'silu', 'tanh', 'relu' or 'softplus', got {kind!r}")


def softmax(x: Tensor) -> Tensor:
    """See :func:`graphgen.ops.softmax`."""
    return torch.softmax(x, -1)


def activation_derivative(x: Tensor, kind: str, order: int) -> Tensor:
    """The derivative of that order, by forward mode."""
    if order == 0:
        return activation(x, kind)
    return torch.func.jvp(lambda at: activation_derivative(at, kind, order - 1), (x,), (torch.ones_like(x),))[1]


def activation_gradient(
    terms: Sequence[Tensor | None], kind: str, wanted: Sequence[int], mixed: bool = False
) -> tuple[Tensor, ...]:
    """The products by which an activation is differentiated, see graphgen/ops/_products.py."""
    x, *factors = terms[:3] if mixed else terms
    assert x is not None
    out = []
    for m in wanted:
        product = activation_derivative(x, kind, len(factors) - (m > 0))
        for n, factor in enumerate(factors, start=1):
            if n != m and factor is not None:
                product = product * factor
        if mixed and m == 0 and terms[3] is not None:
            product = product + activation_derivative(x, kind, 1) * terms[3]
        out.append(product)
    return tuple(out)
