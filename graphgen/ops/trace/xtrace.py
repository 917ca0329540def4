"""The trace from a subspace that the field's own products find, every product used for everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.trace.dots import graph_dot, graph_scale
from graphgen.ops.trace.hutchinson import Push, add_in_order, mean_and_error, push_each, together
from graphgen.ops.trace.probes import draw_probe

# A product this much (times the rounding unit) shorter than it was before the others were removed from it is theirs.
_DEPENDENT = 100


def xtrace(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    graph: GraphBatch,
    products: int,
    seed: int,
    graph_ids: Tensor | None,
    push: Push = push_each,
) -> tuple[Tensor, Tensor, Tensor]:
    """The exchangeable estimator of Epperly, Tropp and Webber (2024), see :func:`graphgen.ops.divergence`.

    With k = products // 2 normal vectors w, the trace of the Jacobian J on the range of the J w of all but one of them
    is known, and what is missing is estimated by the one left out, projected on the rest of the space and scaled to the
    length of a random vector there. The k estimates from leaving out each have the mean for a result. A graph of no
    more than 2k numbers has its unit vectors for vectors, which makes it exact; nothing else depends on its batch.

    Where the J w are linearly dependent, those that add nothing to the range leave it as it is: with J of a rank
    below k every estimate is then exact.

    The projections are held constant in derivatives, which stay unbiased: an estimate has the right mean for every
    projection that does not know the vector left out.
    """
    if products < 2:
        raise ValueError(f"divergence: xtrace needs probes >= 2, the number of its products, got {products}")
    count = products // 2
    numbers = graph.ptr.diff() * x.shape[1]
    small = numbers <= 2 * count
    units = _unit_vectors(x, graph, 2 * count)
    is_small = small[graph.batch.long()].unsqueeze(1)
    normals = [draw_probe(graph, x.shape[1], "normal", seed, k, graph_ids, x.dtype) for k in range(count)]
    tests = torch.where(is_small, units[:count], torch.stack(normals))

    value, images = _push_all(push, f, x, tests)
    with torch.no_grad():
        span = _span(images.detach(), graph.ptr)
        basis = torch.where(is_small, units[count:], span.basis)
        # In the coordinates of the basis: the direction that each vector alone brings in, and where the vector lies in
        # what the others span.
        own = span.own.masked_fill(small, 0.0)
        inside = graph_dot(tests, basis, graph.ptr).masked_fill(small, 0.0)
        along = add_in_order([own[:, j] * inside[:, j] for j in range(count)])
        inside = inside - own * along.unsqueeze(1)
        left = tests - graph_scale(inside, basis, graph.ptr)
        dimensions = numbers - span.rank + own.ne(0).any(1)
        squares = torch.stack([graph_dot(v, v, graph.ptr) for v in left])
        weight = torch.where(small, count, dimensions / squares)
        directions = graph_scale(own, basis, graph.ptr)
    _, pushed = _push_all(push, f, x, basis)

    known = add_in_order([graph_dot(basis[k], pushed[k], graph.ptr) for k in range(count)])
    own_pushed = graph_scale(own, pushed, graph.ptr)
    left_pushed = images - graph_scale(inside, pushed, graph.ptr)
    estimates = [
        known
        - graph_dot(directions[k], own_pushed[k], graph.ptr)
        + weight[k] * graph_dot(left[k], left_pushed[k], graph.ptr)
        for k in range(count)
    ]
    trace, error = mean_and_error(estimates)
    return value, trace, error.masked_fill(small, 0.0)


def _push_all(push: Push, f: Callable[[Tensor], Tensor], x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """f(x), and its derivatives along vectors [K, N, F]."""
    values, tangents = zip(*(push(f, x, some) for some in vectors.split(together(x))), strict=True)
    return values[0], tangents[0] if len(tangents) == 1 else torch.cat(tangents)


def _unit_vectors(x: Tensor, graph: GraphBatch, count: int) -> Tensor:
    """[count, N, F] of which the k-th is 1 at number k of every graph that has one."""
    place = torch.arange(x.numel(), device=x.device).view(x.shape)
    place = place - (graph.ptr[graph.batch.long()].long() * x.shape[1]).unsqueeze(1)
    return (place == torch.arange(count, device=x.device).view(-1, 1, 1)).to(x.dtype)


class _Span(NamedTuple):
    basis: Tensor  # [K, N, F] orthonormal per graph, 0 where a vector adds nothing to those before it
    own: Tensor  # [K, K, B] own[k] is, in this basis, the unit vector of the span orthogonal to all vectors but k; or 0
    rank: Tensor  # [B] dimensions of the span


def _span(vectors: Tensor, ptr: Tensor) -> _Span:
    """What vectors [K, N, F] span in every graph, by Gram and Schmidt done twice.

    Not by a batched factorisation of padded blocks: here a graph's sums depend on that graph alone.
    """
    count, graphs = vectors.shape[0], ptr.shape[0] - 1
    unit = torch.finfo(vectors.dtype).eps
    lengths = torch.stack([graph_dot(v, v, ptr).sqrt() for v in vectors])
    longest = lengths.amax(0)
    basis = torch.zeros_like(vectors)
    triangle = vectors.new_zeros((count, count, graphs))
    kept = torch.zeros((count, graphs), dtype=torch.bool, device=vectors.device)
    for k in range(count):
        v = vectors[k : k + 1]
        for _ in range(2 if k else 0):
            parts = graph_dot(basis[:k], v, ptr)
            triangle[:k, k] += parts[:, 0]
            v = v - graph_scale(parts.transpose(0, 1), basis[:k], ptr)
        length = graph_dot(v[0], v[0], ptr).sqrt()
        kept[k] = length > _DEPENDENT * unit * lengths[k]
        # Small enough to make a dependent vector's coordinate the large one below, and no smaller.
        triangle[k, k] = torch.where(kept[k], length, torch.where(longest > 0, unit**0.5 * longest, 1.0))
        basis[k] = graph_scale(torch.where(kept[k], 1 / length, 0.0), v[0], ptr)
    own = _unit_rows_of_inverse(triangle)
    # A vector whose own direction is that of a dependent one is itself dependent: the others span all there is.
    own = own * kept
    squares = add_in_order([own[:, j].square() for j in range(count)])
    scale = torch.where(squares > 0.5, 1 / squares.sqrt(), 0.0)
    return _Span(basis, own * scale.unsqueeze(1), kept.sum(0))


def _unit_rows_of_inverse(triangle: Tensor) -> Tensor:
    """Of an upper triangular [K, K, B]; element by element, since a batched solver may add in other orders."""
    count = triangle.shape[0]
    rows: list[Tensor] = []
    for i in reversed(range(count)):
        row = torch.zeros_like(triangle[i])
        row[i] = 1.0
        for j, below in enumerate(rows, start=i + 1):
            row = row - triangle[i, j] * below
        rows.insert(0, row / triangle[i, i])
    inverse = torch.stack(rows)
    squares = add_in_order([inverse[:, j].square() for j in range(count)])
    return inverse / squares.sqrt().unsqueeze(1)
