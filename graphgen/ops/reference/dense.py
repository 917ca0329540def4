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


def node_update(h: Tensor, own: Tensor, received: Tensor, kind: str = "silu") -> Tensor:
    """See :func:`graphgen.ops.node_update`."""
    return h + activation(own + received, kind)


def softmax(x: Tensor) -> Tensor:
    """See :func:`graphgen.ops.softmax`."""
    return torch.softmax(x, -1)


def activation_derivative(x: Tensor, kind: str, order: int) -> Tensor:
    """The derivative of that order, by forward mode."""
    if order == 0:
        return activation(x, kind)
    return torch.func.jvp(lambda at: activation_derivative(at, kind, order - 1), (x,), (torch.ones_like(x),))[1]


def activation_gradient(terms: Sequence[Tensor | None], kind: str, wanted: Sequence[int]) -> tuple[Tensor, ...]:
    """The products by which an activation is differentiated, see graphgen/ops/_products.py."""
    x, *factors = terms
    assert x is not None
    out = []
    for m in wanted:
        product = activation_derivative(x, kind, len(factors) - (m > 0))
        for n, factor in enumerate(factors, start=1):
            if n != m and factor is not None:
                product = product * factor
        out.append(product)
    return tuple(out)


def activation_push(x: Tensor, along: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Tangents [K, ...] and the value."""
    return activation_derivative(x, kind, 1) * along, activation(x, kind)


def activation_pull(
    x: Tensor, along: Tensor, value_grad: Tensor | None, tangent_grad: Tensor, kind: str, wanted: Sequence[int]
) -> tuple[Tensor, ...]:
    """What gradients of that value and of those tangents give to x and to the directions."""
    slope = activation_derivative(x, kind, 1)
    to_x = activation_derivative(x, kind, 2) * (along * tangent_grad).sum(0)
    if value_grad is not None:
        to_x = to_x + slope * value_grad
    return tuple((to_x, slope * tangent_grad)[code] for code in wanted)
