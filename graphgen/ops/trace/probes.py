"""Random probes, and the dot product with one that is never stored."""

from __future__ import annotations

import torch
from torch import Tensor

from graphgen import _C
from graphgen.graph import GraphBatch
from graphgen.ops import _native, noise
from graphgen.ops._op import Op, loop_batch
from graphgen.ops.reference import noise as noise_reference
from graphgen.ops.reference import trace as reference
from graphgen.ops.trace.dots import graph_dot, graph_scale

DISTRIBUTIONS = ("rademacher", "normal", "sphere")
_PROBES = DISTRIBUTIONS[:2]  # whose entries are independent: one can be made without the others
_PROBE = "int seed, int stream, int step, Tensor? graph_ids, str distribution"


def _where(ptr: Tensor, graph_ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return ptr.long().contiguous(), None if graph_ids is None else graph_ids.long().contiguous()


def _probe_dot_kernel(pushed: Tensor, ptr: Tensor, seed: int, *probe) -> Tensor:
    stream, step, graph_ids, distribution = probe
    if not _native.runs(pushed):
        return reference.probe_dot(pushed, ptr, _unsigned(seed), stream, step, graph_ids, distribution)
    pushed = pushed.contiguous()
    ptr, graph_ids = _where(ptr, graph_ids)
    out = pushed.new_empty(ptr.shape[0] - 1)
    _native.call(
        _C.probe_dot,
        pushed,
        pushed.data_ptr(),
        ptr.data_ptr(),
        _native.address(graph_ids),
        out.data_ptr(),
        out.shape[0],
        pushed.shape[1],
        pushed.shape[0],
        _unsigned(seed),
        stream,
        step,
        _native.DISTRIBUTIONS[distribution],
        _native.DTYPES[pushed.dtype],
    )
    return out


def _probe_scale_kernel(scale: Tensor, ptr: Tensor, rows: int, features: int, seed: int, *probe) -> Tensor:
    stream, step, graph_ids, distribution = probe
    if not _native.runs(scale):
        return reference.probe_scale(scale, ptr, features, _unsigned(seed), stream, step, graph_ids, distribution)
    scale = scale.contiguous()
    ptr, graph_ids = _where(ptr, graph_ids)
    out = scale.new_empty((rows, features))
    _native.call(
        _C.probe_scale,
        scale,
        scale.data_ptr(),
        ptr.data_ptr(),
        _native.address(graph_ids),
        out.data_ptr(),
        scale.shape[0],
        features,
        rows,
        _unsigned(seed),
        stream,
        step,
        _native.DISTRIBUTIONS[distribution],
        _native.DTYPES[scale.dtype],
    )
    return out


# A schema's integers have a sign.
def _signed(seed: int) -> int:
    return seed - (seed >> 63 << 64)


def _unsigned(seed: int) -> int:
    return seed % (1 << 64)


_probe_dot: Op = Op(
    "probe_dot",
    f"(Tensor pushed, Tensor ptr, {_PROBE}) -> Tensor",
    _probe_dot_kernel,
    lambda pushed, ptr, *probe: pushed.new_empty(ptr.shape[0] - 1),
    lambda args, grad, needs: (_probe_scale(grad, args[1], *args[0].shape, *args[2:]), *(None,) * 6),
    lambda args, tangents: _probe_dot(tangents[0], *args[1:]),
    lambda args, in_dims, size: loop_batch(_probe_dot, args, in_dims, size),
)
_probe_scale: Op = Op(
    "probe_scale",
    f"(Tensor scale, Tensor ptr, SymInt rows, SymInt features, {_PROBE}) -> Tensor",
    _probe_scale_kernel,
    lambda scale, ptr, rows, features, *probe: scale.new_empty((rows, features)),
    lambda args, grad, needs: (_probe_dot(grad, args[1], *args[4:]), *(None,) * 8),
    lambda args, tangents: _probe_scale(tangents[0], *args[1:]),
    lambda args, in_dims, size: loop_batch(_probe_scale, args, in_dims, size),
)


def probe_dot(
    pushed: Tensor,
    ptr: Tensor,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    distribution: str = "rademacher",
) -> Tensor:
    """``out[g] = <v, pushed>`` over the nodes of graph g, v made as it is read; differentiable any number of times.

    The bits are those of :func:`graph_dot` with the same v from :func:`rademacher` or :func:`normal`.

    Args:
        pushed: [N, F] float32, float64 or bfloat16 (accumulated in float32).
        ptr: [B + 1] int32 or int64 node boundaries from 0 to N.
        seed, stream, step, graph_ids: as those functions'.
        distribution: "rademacher" or "normal".

    Returns:
        [B].

    Raises:
        IndexError: a ptr that falls or does not go from 0 to N (CPU; a CUDA call does not wait to look).
        ValueError: an unknown distribution, or numbers out of their ranges.
    """
    if pushed.dim() != 2 or distribution not in _PROBES:
        raise ValueError(
            f"probe_dot: expected pushed [N, F] and a distribution of {list(_PROBES)}, got {list(pushed.shape)} and "
            f"{distribution!r}"
        )
    noise_reference.check(ptr, pushed.shape[1], seed, stream, step, graph_ids)
    return _probe_dot(pushed, ptr, _signed(seed), int(stream), step, graph_ids, distribution)


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
