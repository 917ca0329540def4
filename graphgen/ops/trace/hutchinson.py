"""The trace as a mean over random probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops import noise
from graphgen.ops._op import push_forward
from graphgen.ops.dense import linear
from graphgen.ops.message_passing import segment_reduce


def hutchinson(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    probes: int,
    distribution: str,
    seed: int,
    graph_ids: Tensor | None,
    push: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], tuple[Tensor, Tensor]] = push_forward,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of v.Jv over random v with covariance 1 (Hutchinson 1990), see :func:`graphgen.ops.divergence`."""
    if distribution not in ("rademacher", "normal") or probes < 1:
        raise ValueError(
            f"divergence: needs distribution 'rademacher' or 'normal' and probes >= 1, got {distribution!r}, {probes}"
        )
    draw = noise.rademacher if distribution == "rademacher" else noise.normal
    estimates = []
    for probe in range(probes):
        v = draw(graph.ptr, x.shape[1], seed, noise.Stream.PROBE, probe, graph_ids, x.dtype)
        value, pushed = push(f, x, v)
        estimates.append(_graph_dot(v, pushed, graph))
    trace = _add(estimates) / probes
    if probes == 1:
        return value, trace, torch.full_like(trace, torch.nan)
    variance = _add([(estimate - trace).square() for estimate in estimates]) / (probes - 1)
    return value, trace, (variance / probes).sqrt().detach()


def _add(terms: list[Tensor]) -> Tensor:
    """In their order: torch's own sums add in another one when the number of graphs changes."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _graph_dot(a: Tensor, b: Tensor, graph: GraphBatch) -> Tensor:
    """[B] <a, b> over each graph's nodes, in a fixed order."""
    product = a * b
    rows = linear(product, product.new_ones((product.shape[1], 1)))
    return segment_reduce(rows, graph.ptr).squeeze(1)
