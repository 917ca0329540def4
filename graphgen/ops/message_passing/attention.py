"""Attention over the neighbours of a node."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native
from graphgen.ops._op import Op, eager
from graphgen.ops.message_passing._edges import EDGES, edges_of, plain_graph, turn, vmap_as_heads
from graphgen.ops.message_passing.neighbors import _edge_dot, _gather
from graphgen.ops.message_passing.softmax import _edge_softmax, _edge_softmax_slope
from graphgen.ops.reference import message_passing as reference

# Inside, node tensors are [N, H * D]. The derivatives compute the [E, H] probabilities anew rather than keep them, and
# are sums of the two closed kernels of `neighbors` and of the softmax's Jacobian: differentiable any number of times.


def _width(rows: Tensor, heads: int) -> int:
    return rows.shape[1] // heads if heads else 0


def _attention_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *rest) -> Tensor:
    *edges, heads, scale = rest
    rowptr, neighbor = edges[:2]
    if not _native.runs(q):
        graph, _ = plain_graph(edges, q.shape[0])
        q, k, v = (rows.unflatten(1, (heads, _width(rows, heads))) for rows in (q, k, v))
        return reference.neighbor_attention(q, k, v, graph, bias, scale).flatten(1)
    return _run(q, k, v, bias, rowptr, neighbor, heads, _width(q, heads), _width(v, heads), scale)


def _run(q, k, v, bias, rowptr, neighbor, heads, width, value_width, scale) -> Tensor:
    """On the engine, whether a head is a dimension or not."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    bias = None if bias is None else bias.contiguous()
    out = torch.empty_like(v)
    _native.call(
        _C.neighbor_attention,
        q,
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        _native.address(bias),
        rowptr.data_ptr(),
        neighbor.data_ptr(),
        out.data_ptr(),
        q.shape[0],
        heads,
        width,
        value_width,
        scale,
        _native.DTYPES[q.dtype],
        _native.INDICES[rowptr.dtype],
    )
    return out


def _probability(q: Tensor, k: Tensor, bias: Tensor | None, edges: list, heads: int, scale: float) -> Tensor:
    logits = _edge_dot(q, k, None, *edges, heads, False) * scale
    return _edge_softmax(logits if bias is None else logits + bias, edges[0])


def _attention_vjp(args, grad, needs):
    q, k, v, bias, *edges, heads, scale = args
    probability = _probability(q, k, bias, edges, heads, scale)
    to_q = to_k = to_v = to_bias = None
    if needs[2]:
        to_v = _gather(grad, probability, None, *turn(edges), False, "sum")
    if needs[0] or needs[1] or needs[3]:
        to_probability = _edge_dot(grad, v, None, *edges, heads, False)
        to_bias = _edge_softmax_slope(probability, to_probability, edges[0])
        to_logits = to_bias * scale
        if needs[0]:
            to_q = _gather(k, to_logits, None, *edges, False, "sum")
        if needs[1]:
            to_k = _gather(q, to_logits, None, *turn(edges), False, "sum")
    return to_q, to_k, to_v, to_bias if needs[3] else None, *(None,) * 8


def _attention_jvp(args, tangents):
    q, k, v, bias, *edges, heads, scale = args
    dq, dk, dv, dbias, *_ = tangents
    probability = _probability(q, k, bias, edges, heads, scale)
    parts = []
    if dv is not None:
        parts.append(_gather(dv, probability, None, *edges, False, "sum"))
    logits = [] if dbias is None else [dbias]
    if dq is not None:
        logits.append(_edge_dot(dq, k, None, *edges, heads, False) * scale)
    if dk is not None:
        logits.append(_edge_dot(q, dk, None, *edges, heads, False) * scale)
    if logits:
        along = _edge_softmax_slope(probability, sum(logits[1:], logits[0]), edges[0])
        parts.append(_gather(v, along, None, *edges, False, "sum"))
    return sum(parts[1:], parts[0])


_attention: Op = Op(
    "neighbor_attention",
    f"(Tensor q, Tensor k, Tensor v, Tensor? bias, {EDGES}, SymInt heads, float scale) -> Tensor",
    _attention_kernel,
    lambda q, k, v, *rest: torch.empty_like(v, memory_format=torch.contiguous_format),
    _attention_vjp,
    _attention_jvp,
    vmap_as_heads(lambda: _attention, 4),
)


def neighbor_attention(
    q: Tensor, k: Tensor, v: Tensor, graph: GraphBatch, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """``out[i, h] = sum over edges e: j -> i of p[e, h] v[j, h]``, p the softmax over the edges that enter i.

    Its logits are ``scale * <q[i, h], k[j, h]> + bias[e, h]``: scaled dot-product attention (Vaswani et al. 2017,
    eq. 1) restricted to the edges of a graph, as in GRAND (Chamberlain et al. 2021). One sweep; nothing of size
    [E, D] is stored, and the softmax is shifted by the highest logit so that nothing overflows (on a GPU online, as
    Milakov and Gimelshein 2018).

    Args:
        q, k: [N, H, D], float32, float64 or bfloat16 (computed in float32).
        v: [N, H, Dv], same dtype.
        bias: [E, H], same dtype, in the order of ``graph.col``; None for 0. -inf closes an edge; a node that is left
            with none gets NaN, as in torch.softmax.
        scale: of the products; None for 1 / sqrt(D).

    Returns:
        [N, H, Dv]; 0 for an isolated node. Differentiable any number of times by q, k, v and bias.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    shape, values = q.shape, v.shape
    if (
        len(shape) != 3
        or shape[0] != graph.rowptr.shape[0] - 1
        or k.shape != shape
        or values[:2] != shape[:2]
        or len(values) != 3
    ):
        raise ValueError(
            f"neighbor_attention: q and k must be [{graph.num_nodes}, H, D] and v [{graph.num_nodes}, H, Dv], got "
            f"{list(shape)}, {list(k.shape)} and {list(values)}"
        )
    if bias is not None and bias.shape != (graph.col.shape[0], shape[1]):
        raise ValueError(
            f"neighbor_attention: bias must be [{graph.num_edges}, {shape[1]}], one per edge and head, got "
            f"{list(bias.shape)}"
        )
    dtype, device = q.dtype, graph.col.device
    for name, tensor in (("q", q), ("k", k), ("v", v), ("bias", bias)):
        if tensor is not None and (tensor.dtype != dtype or tensor.device != device):
            raise ValueError(
                f"neighbor_attention: {name} is {tensor.dtype} on {tensor.device}, but q is {dtype} and the graph on "
                f"{device}; convert or move one of them"
            )
    _, heads, width = shape
    if scale is None:
        scale = width**-0.5 if width else 1.0
    if eager(q, k, v, bias) and _native.runs(q):
        return _run(q, k, v, bias, graph.rowptr, graph.col, heads, width, values[2], scale)
    rows = (q.flatten(1), k.flatten(1), v.flatten(1), bias)
    return _attention(*rows, *edges_of(graph, q, k, v, bias), heads, scale).view(values)
