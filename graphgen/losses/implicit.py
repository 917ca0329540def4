"""Score matching without the score of the data."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops import divergence, graph_dot


def implicit_score_matching(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    method: str = "exact",
    probes: int = 1,
    distribution: str = "rademacher",
    seed: int = 0,
    graph_ids: Tensor | None = None,
    reach: int | None = None,
) -> Tensor:
    """``|s(x)|^2 / 2 + tr ds/dx`` per graph (Hyvarinen 2005, theorem 1).

    Its mean over the data is that of ``|s - grad log p|^2 / 2`` and a constant, by integration by parts.

    Args:
        score: [N, F] -> [N, F]; graphs must not influence each other.
        x: [N, F] points of the data, float32 or float64.
        graph: whose nodes the rows of x are.
        method, probes, distribution, seed, graph_ids, reach: of the trace, as :func:`graphgen.ops.divergence`'s; an
            estimated trace has the right mean, and so has its gradient.

    Returns:
        [B], differentiable in x and in whatever score closes over.

    Raises:
        ValueError: as divergence.
    """
    value, trace, _ = divergence(score, x, graph, method, probes, distribution, seed, graph_ids, reach)
    return 0.5 * graph_dot(value, value, graph.ptr) + trace
