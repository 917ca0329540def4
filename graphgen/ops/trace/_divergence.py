"""The divergence of a field: per graph, the trace of its Jacobian over all of the graph's nodes.

Nodes interact, so the trace of the whole graph's Jacobian is not what per-channel sums over nodes give (the published
modular-flow code does that: on a nine-node ring-chain it returns 5.60 where the trace is 1.51).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.trace.exact import exact
from graphgen.ops.trace.hutchinson import hutchinson, push_each
from graphgen.ops.trace.local import local
from graphgen.ops.trace.tape import push_dual
from graphgen.ops.trace.xtrace import xtrace

METHODS = ["hutchinson", "xtrace", "exact", "auto"]

# So many tangents of the exact trace, of all graphs at once, cost what one product does. Of a field that says how far
# it looks, the exact trace costs so many products for every feature and bond of the balls' radius.
EXACT_TANGENTS_PER_PRODUCT = 1
EXACT_PRODUCTS_PER_FEATURE = 3
# A trained flow's Jacobian has few directions that matter: on a QM9 model xtrace's error is 0.4 of Hutchinson's with 8
# products and 0.1 with 12, but larger with 4. On random fields, of flat spectrum, it is 1.2 to 1.4 times as large.
XTRACE_PRODUCTS = 8


def choose_method(numbers: int, probes: int, features: int, reach: int | None) -> str:
    """What "auto" is: the trace itself where it costs no more than the products asked for, else the better estimate.

    Args:
        numbers: n F of the largest graph.
        probes: how many products Jv may be made.
        features: F.
        reach: how far the field looks, if it says so.

    Returns:
        "exact", "xtrace" or "hutchinson".
    """
    local_cost = numbers if reach is None else EXACT_PRODUCTS_PER_FEATURE * features * max(1, (reach + 1) // 2)
    if min(numbers / EXACT_TANGENTS_PER_PRODUCT, local_cost) <= probes:
        return "exact"
    return "xtrace" if probes >= XTRACE_PRODUCTS else "hutchinson"


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
        method: how; "auto" for :func:`choose_method`.
            "hutchinson": the mean of v.Jv over random v; unbiased (Hutchinson 1990).
            "xtrace": the same budget spent on a subspace first; unbiased, and exact for graphs of n F <= probes and for
            J of a rank below probes / 2 (Epperly, Tropp and Webber 2024).
            "exact": one forward tangent per number of the largest graph, all graphs at once; with ``reach``, one per
            number of a node, carried on a ball around it.
        probes: how many products Jv may be made: Hutchinson's number of v; of xtrace's, half are random. The same seed
            gives the same v, so one seed per ODE solve fixes them, as FFJORD (Grathwohl et al. 2019, section 3.1) asks.
        distribution: of Hutchinson's v: "rademacher", fair signs, which see nothing of the Jacobian's diagonal and so
            have the least variance of all independent entries; "normal"; or "sphere", uniform on the sphere of radius
            sqrt(n F) of each graph, which knows the trace of a multiple of the identity. xtrace's are always normals,
            whose lengths it does not use.
        seed: of the probes.
        graph_ids: [B] what identifies each graph to the noise source; None for 0, 1, 2, ...
        reach: how many rounds of messages f makes of its state, to be given only if f is made of graphgen's ops and
            of sums and products with tensors that do not depend on the state; a NeighbourhoodField is. Both methods
            are then faster: f is called with a stand-in that carries the tangents
            (:class:`~graphgen.ops.trace.tape.Taped`, :class:`~graphgen.ops.trace.local.Pushed`). With a reach of 1, a
            field f(v_i, N(v_i)), "exact" is the trace of the diagonal blocks; in general it needs tangents on balls
            of half the reach around every node only.

    Returns:
        f(x) [N, F]; trace [B]; standard error [B]: 0 where the trace is exact, NaN with a single random v.

    Differentiable in x and in whatever f closes over; xtrace's derivatives hold its subspace constant, which leaves
    them unbiased. A graph's bits do not depend on its batch mates, unless method is "auto", which looks at the largest.

    Raises:
        TypeError: reach was given for a field that uses something else.
        ValueError: an unknown method or distribution, probes < 1, xtrace's probes < 2, or more rounds than the reach
            (seen by "exact").
    """
    if method == "auto":
        largest = graph.shared("largest", lambda: int(graph.ptr.diff().max()) if graph.num_graphs else 0)
        method = choose_method(largest * x.shape[1], probes, x.shape[1], reach)
    if method == "exact" and reach is not None:
        value, trace = local(f, x, graph, reach)
        return value, trace, torch.zeros_like(trace.detach())
    if method == "exact":
        return exact(f, x, graph)
    push = push_each if reach is None else push_dual
    if method == "xtrace":
        return xtrace(f, x, graph, probes, seed, graph_ids, push)
    if method != "hutchinson":
        raise ValueError(f"divergence: method must be one of {METHODS}, got {method!r}")
    return hutchinson(f, x, graph, probes, distribution, seed, graph_ids, push)
