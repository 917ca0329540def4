"""The divergence of a field: per graph, the trace of its Jacobian over all of the graph's nodes.

Nodes interact, so the trace of the whole graph's Jacobian is not what per-channel sums over nodes give (the published
modular-flow code does that: on a nine-node ring-chain it returns 5.60 where the trace is 1.51).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops import noise
from graphgen.ops._op import push_forward
from graphgen.ops.dense import linear
from graphgen.ops.message_passing import segment_reduce

# Tangents are pushed forward in chunks of about this many numbers, which stay in cache.
_CHUNK_NUMBERS = 1 << 20


def divergence(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    method: str = "hutchinson",
    probes: int = 1,
    distribution: str = "rademacher",
    seed: int = 0,
    graph_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A field's value and, per graph, the trace of its Jacobian.

    Args:
        f: [N, F] -> [N, F]; graphs must not influence each other.
        x: [N, F] float32 or float64.
        graph: whose nodes the rows of x are.
        method: "hutchinson" (mean of v.Jv over random v; unbiased; Hutchinson 1990) or "exact" (one forward
            tangent per number of the largest graph, all graphs at once; costs max n F field evaluations).
        probes: Hutchinson's number of v. The same seed gives the same v, so one seed per ODE solve fixes them, as
            FFJORD (Grathwohl et al. 2019, section 3.1) asks.
        distribution: of v, "rademacher" or "normal".
        seed: of the probes.
        graph_ids: [B] what identifies each graph to the noise source; None for 0, 1, 2, ...

    Returns:
        f(x) [N, F]; trace [B]; standard error [B]: 0 for "exact", NaN with a single probe.

    Differentiable in x and in whatever f closes over.

    Raises:
        ValueError: an unknown method or distribution, or probes < 1.
    """
    if method == "exact":
        return _exact(f, x, graph)
    if method != "hutchinson":
        raise ValueError(f"divergence: method must be 'hutchinson' or 'exact', got {method!r}")
    if distribution not in ("rademacher", "normal") or probes < 1:
        raise ValueError(
            f"divergence: needs distribution 'rademacher' or 'normal' and probes >= 1, got {distribution!r}, {probes}"
        )
    draw = noise.rademacher if distribution == "rademacher" else noise.normal
    estimates = []
    for probe in range(probes):
        v = draw(graph.ptr, x.shape[1], seed, noise.Stream.PROBE, probe, graph_ids, x.dtype)
        value, pushed = push_forward(f, x, v)
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


def _exact(f: Callable[[Tensor], Tensor], x: Tensor, graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
    nodes, features = x.shape
    first = graph.ptr[:-1].long()
    counts = graph.ptr.diff().long() * features
    tangents = int(counts.max()) if counts.numel() else 0
    per_chunk = max(1, _CHUNK_NUMBERS // max(1, x.numel()))
    trace = x.new_zeros(graph.num_graphs)
    for start in range(0, tangents, per_chunk):
        which = torch.arange(start, min(start + per_chunk, tangents), device=x.device).unsqueeze(1)
        # Tangent d is 1 at number d of every graph that has one.
        alive = (which < counts).to(x.dtype)
        place = (first * features + which).clamp(max=max(nodes * features - 1, 0))
        basis = x.new_zeros((which.shape[0], nodes * features)).scatter_add(1, place, alive)
        pushed = torch.func.vmap(lambda v: torch.func.jvp(f, (x,), (v,))[1])(basis.view(-1, nodes, features))
        diagonal = pushed.reshape(which.shape[0], -1).gather(1, place) * alive
        for row in diagonal:
            trace = trace + row
    return f(x), trace, torch.zeros_like(trace.detach())
