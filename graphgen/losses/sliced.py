"""Score matching along random directions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.losses.implicit import implicit_score_matching
from graphgen.ops import graph_dot
from graphgen.ops._op import push_forward
from graphgen.ops.trace import add_in_order, check_probes, draw_probe


def sliced_score_matching(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    probes: int = 1,
    distribution: str = "normal",
    seed: int = 0,
    graph_ids: Tensor | None = None,
) -> Tensor:
    """The mean over random v of ``v.(ds/dx)v + (v.s(x))^2 / 2``, per graph (Song et al. 2019).

    Args:
        score, x, graph: as :func:`implicit_score_matching`'s.
        probes: number of v.
        distribution: of v: "rademacher", "normal" or "sphere".
        seed, graph_ids: of the noise source; give every training step its own seed.

    Returns:
        [B], differentiable in x and in whatever score closes over.

    Raises:
        ValueError: an unknown distribution, or probes < 1.
    """
    check_probes("sliced_score_matching", distribution, probes)
    losses = []
    for probe in range(probes):
        v = draw_probe(graph, x.shape[1], distribution, seed, probe, graph_ids, x.dtype)
        value, pushed = push_forward(score, x, v)
        losses.append(graph_dot(v, pushed, graph.ptr) + 0.5 * graph_dot(v, value, graph.ptr).square())
    return add_in_order(losses) / probes


def reduced_sliced_score_matching(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    probes: int = 1,
    distribution: str = "rademacher",
    seed: int = 0,
    graph_ids: Tensor | None = None,
) -> Tensor:
    """The mean over random v of ``v.(ds/dx)v``, and ``|s(x)|^2 / 2``, per graph (Song et al. 2019).

    The second term of :func:`sliced_score_matching` with its mean over v taken, which reduces the variance. This is
    :func:`implicit_score_matching` with Hutchinson's trace. Arguments, result and errors as sliced_score_matching's.
    """
    return implicit_score_matching(score, x, graph, "hutchinson", probes, distribution, seed, graph_ids)
