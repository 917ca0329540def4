"""The trace as a mean over random probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import Push, push_forward
from graphgen.ops.trace.dots import graph_dot
from graphgen.ops.trace.probes import check_probes, draw_probe


def hutchinson(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    probes: int,
    distribution: str,
    seed: int,
    graph_ids: Tensor | None,
    push: Push = push_forward,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of v.Jv over random v with covariance 1 (Hutchinson 1990), see :func:`graphgen.ops.divergence`."""
    check_probes("divergence", distribution, probes)
    estimates = []
    for probe in range(probes):
        v = draw_probe(graph, x.shape[1], distribution, seed, probe, graph_ids, x.dtype)
        value, pushed = push(f, x, v)
        estimates.append(graph_dot(v, pushed, graph.ptr))
    return value, *mean_and_error(estimates)


def mean_and_error(estimates: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Their mean and its standard error, NaN of a single one."""
    count = len(estimates)
    mean = add_in_order(estimates) / count
    if count == 1:
        return mean, torch.full_like(mean, torch.nan)
    squares = add_in_order([(estimate - mean).detach().square() for estimate in estimates])
    return mean, (squares / (count * (count - 1))).sqrt()


def add_in_order(terms: list[Tensor]) -> Tensor:
    """In their order: torch's own sums add in another one when the number of graphs changes."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
