"""The trace as a mean over random probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import push_forward
from graphgen.ops.trace.dots import graph_dot
from graphgen.ops.trace.probes import check_probes, draw_probe

# f(x) and its derivatives along vectors [K, N, F].
Push = Callable[[Callable, Tensor, Tensor], tuple[Tensor, Tensor]]
# So many tangents are pushed together, if they have no more rows than this: by then what they share costs little, and
# larger arrays leave the caches. A tangent's bits are the same in any company.
_TOGETHER, _ROWS_TOGETHER = 8, 40_000


def together(x: Tensor) -> int:
    """How many tangents of x are pushed at a time."""
    return max(1, min(_TOGETHER, _ROWS_TOGETHER // max(x.shape[0], 1)))


def push_each(f: Callable[[Tensor], Tensor], x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """One after the other, for any f."""
    pairs = [push_forward(f, x, v) for v in vectors]
    return pairs[0][0], torch.stack([tangent for _, tangent in pairs])


def hutchinson(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    probes: int,
    distribution: str,
    seed: int,
    graph_ids: Tensor | None,
    push: Push = push_each,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of v.Jv over random v with covariance 1 (Hutchinson 1990), see :func:`graphgen.ops.divergence`."""
    check_probes("divergence", distribution, probes)
    estimates = []
    count = together(x)
    for first in range(0, probes, count):
        steps = range(first, min(first + count, probes))
        vectors = [draw_probe(graph, x.shape[1], distribution, seed, step, graph_ids, x.dtype) for step in steps]
        value, pushed = push(f, x, torch.stack(vectors) if len(vectors) > 1 else vectors[0].unsqueeze(0))
        estimates += [graph_dot(v, tangent, graph.ptr) for v, tangent in zip(vectors, pushed.unbind(), strict=True)]
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
