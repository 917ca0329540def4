"""The divergence of a field: per graph, the trace of its Jacobian over all of the graph's nodes.

Nodes interact, so the trace of the whole graph's Jacobian is not what per-channel sums over nodes give (the published
modular-flow code does that: on a nine-node ring-chain it returns 5.60 where the trace is 1.51).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.trace.exact import exact
from graphgen.ops.trace.hutchinson import hutchinson


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
        return exact(f, x, graph)
    if method != "hutchinson":
        raise ValueError(f"divergence: method must be 'hutchinson' or 'exact', got {method!r}")
    return hutchinson(f, x, graph, probes, distribution, seed, graph_ids)
