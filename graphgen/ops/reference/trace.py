"""Sums over graphs in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.ops.reference.message_passing import segment_broadcast, segment_reduce


def graph_dot(a: Tensor, b: Tensor, ptr: Tensor) -> Tensor:
    """See :func:`graphgen.ops.graph_dot`."""
    if a.dim() == 2:
        return segment_reduce((_wide(a) * _wide(b)).sum(1), ptr).to(a.dtype)
    products = torch.einsum("knf,mnf->nkm", _wide(a), _wide(b))
    return segment_reduce(products, ptr).permute(1, 2, 0).to(a.dtype)


def graph_scale(scale: Tensor, a: Tensor, ptr: Tensor) -> Tensor:
    """See :func:`graphgen.ops.graph_scale`."""
    if a.dim() == 2:
        return (segment_broadcast(_wide(scale), ptr, a.shape[0]).unsqueeze(1) * _wide(a)).to(a.dtype)
    rows = segment_broadcast(_wide(scale).permute(2, 0, 1), ptr, a.shape[1])
    return torch.einsum("nkm,mnf->knf", rows, _wide(a)).to(a.dtype)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
