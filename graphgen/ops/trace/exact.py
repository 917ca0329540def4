"""The trace by one tangent per number of the largest graph, all graphs at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen.graph import GraphBatch

# Tangents are pushed forward in chunks of about this many numbers, which stay in cache.
_CHUNK_NUMBERS = 1 << 20


def exact(f: Callable[[Tensor], Tensor], x: Tensor, graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`graphgen.ops.divergence`."""
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
