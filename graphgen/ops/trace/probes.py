"""Random probes."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops import noise
from graphgen.ops.trace.dots import graph_dot, graph_scale

DISTRIBUTIONS = ("rademacher", "normal", "sphere")


def check_probes(name: str, distribution: str, probes: int) -> None:
    """Refuse what :func:`draw_probe` does not know, and no probes at all."""
    if distribution not in DISTRIBUTIONS or probes < 1:
        raise ValueError(
            f"{name}: needs a distribution of {list(DISTRIBUTIONS)} and probes >= 1, got {distribution!r}, {probes}"
        )


def draw_probe(
    graph: GraphBatch,
    features: int,
    distribution: str,
    seed: int,
    step: int,
    graph_ids: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """[N, F] v with mean 0 and covariance 1 per graph: signs, normals, or uniform on the sphere of radius sqrt(n F)."""
    draw = noise.rademacher if distribution == "rademacher" else noise.normal
    v = draw(graph.ptr, features, seed, noise.Stream.PROBE, step, graph_ids, dtype)
    if distribution != "sphere":
        return v
    length = graph_dot(v, v, graph.ptr).sqrt()
    radius = (graph.ptr.diff() * features).to(dtype).sqrt()
    return graph_scale(radius / length, v, graph.ptr)
