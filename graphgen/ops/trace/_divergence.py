"""The divergence of a field: per graph, the trace of its Jacobian over all of the graph's nodes.

Nodes interact, so the trace of the whole graph's Jacobian is not what per-channel sums over nodes give (the published
modular-flow code does that: on a nine-node ring-chain it returns 5.60 where the trace is 1.51).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops._op import push_forward
from graphgen.ops.trace.dual import push_dual
from graphgen.ops.trace.exact import exact
from graphgen.ops.trace.hutchinson import hutchinson
from graphgen.ops.trace.local import local


def divergence(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    method: str = "hutchinson",
    probes: int = 1,
    distribution: str = "rademacher",
    seed: int = 0,
    graph_ids: Tensor | None = None,
    reach: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A field's value and, per graph, the trace of its Jacobian.

    Args:
        f: [N, F] -> [N, F]; graphs must not influence each other.
        x: [N, F] float32 or float64.
        graph: whose nodes the rows of x are.
        method: "hutchinson" (mean of v.Jv over random v; unbiased; Hutchinson 1990) or "exact" (one forward
            tangent per number of the largest graph, all graphs at once, which costs max n F field evaluations; or,
            with ``reach``, one per number of a node, carried on a ball around it).
        probes: Hutchinson's number of v. The same seed gives the same v, so one seed per ODE solve fixes them, as
            FFJORD (Grathwohl et al. 2019, section 3.1) asks.
        distribution: of v, "rademacher" or "normal".
        seed: of the probes.
        graph_ids: [B] what identifies each graph to the noise source; None for 0, 1, 2, ...
        reach: how many rounds of messages f makes of its state, to be given only if f is made of graphgen's ops and
            of sums and products with tensors that do not depend on the state; a NeighbourhoodField is. Both methods
            are then faster: f is called with a stand-in that carries the tangents
            (:class:`~graphgen.ops.trace.dual.Dual`, :class:`~graphgen.ops.trace.local.Pushed`). With a reach of 1, a
            field f(v_i, N(v_i)), "exact" is the trace of the diagonal blocks; in general it needs tangents on balls
            of half the reach around every node only.

    Returns:
        f(x) [N, F]; trace [B]; standard error [B]: 0 for "exact", NaN with a single probe.

    Differentiable in x and in whatever f closes over.

    Raises:
        TypeError: reach was given for a field that uses something else.
        ValueError: an unknown method or distribution, or probes < 1.
    """
    if method == "exact" and reach is not None:
        value, trace = local(f, x, graph, reach)
        return value, trace, torch.zeros_like(trace.detach())
    if method == "exact":
        return exact(f, x, graph)
    if method != "hutchinson":
        raise ValueError(f"divergence: method must be 'hutchinson' or 'exact', got {method!r}")
    push = push_forward if reach is None else push_dual
    return hutchinson(f, x, graph, probes, distribution, seed, graph_ids, push)
