"""Score matching by taking noise out again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops import graph_dot, graph_scale, noise


def denoising_score_matching(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    sigma: float | Tensor,
    seed: int = 0,
    graph_ids: Tensor | None = None,
) -> Tensor:
    """``|s(x + sigma z) + z / sigma|^2 / 2`` per graph, z standard normal (Vincent 2011).

    Least for the score of the data convolved with N(0, sigma^2), not of the data itself; no derivative of s is needed.

    Args:
        score, x, graph: as :func:`implicit_score_matching`'s.
        sigma: standard deviation of the noise, in the units of x: a number, or [B], one per graph; > 0.
        seed, graph_ids: of z, read from the noise source's stream PATH; give every training step its own seed.

    Returns:
        [B], differentiable in x, in sigma and in whatever score closes over.

    Raises:
        ValueError: a sigma of another shape.
    """
    scale = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if scale.dim() > 1 or (scale.dim() == 1 and scale.shape[0] != graph.num_graphs):
        raise ValueError(
            f"denoising_score_matching: sigma must be a number or [{graph.num_graphs}], got {list(scale.shape)}"
        )
    scale = scale.expand(graph.num_graphs)
    z = noise.normal(graph.ptr, x.shape[1], seed, noise.Stream.PATH, 0, graph_ids, x.dtype)
    miss = score(x + graph_scale(scale, z, graph.ptr)) + graph_scale(1 / scale, z, graph.ptr)
    return 0.5 * graph_dot(miss, miss, graph.ptr)
