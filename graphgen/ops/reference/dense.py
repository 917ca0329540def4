"""Dense node-wise ops in plain torch."""

from __future__ import annotations

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
