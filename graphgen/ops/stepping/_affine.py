"""The two kernels all steps are made of, and their derivatives, which are the same two kernels again.

A step is affine in every array it takes, and a sum over each graph of a product of two arrays is what the derivative
by one number of a graph needs. Noise is made anew where a derivative wants it, so nothing is stored for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import Op, eager, loop_batch
from graphgen.ops.noise import Stream
from graphgen.ops.reference import stepping as reference

MAX_TERMS = 8
_SUM_CHUNK = 1024  # GG_SUM_CHUNK
_NO_TERMS = (None,) * MAX_TERMS
PerGraph = float | Tensor  # one number, or one for every graph: [B]


class Noise(NamedTuple):
    """Which numbers a step draws; the arguments of :func:`graphgen.ops.normal`."""

    ptr: Tensor
    graph_ids: Tensor | None
    step_at: Tensor | None
    seed: int
    stream: int
    step: int
    symmetric: bool

    def addresses(self) -> tuple[int, int, int, int, int, int, bool]:
        """For an engine call."""
        ptr, graph_ids, step_at, seed, stream, step, symmetric = self
        return (
            ptr.data_ptr(),
            0 if graph_ids is None else graph_ids.data_ptr(),
            0 if step_at is None else step_at.data_ptr(),
            seed & 0xFFFFFFFFFFFFFFFF,
            stream,
            step,
            symmetric,
        )


def noise_of(
    ptr: Tensor, graph_ids: Tensor | None, seed: int, stream: int, step: int | Tensor, symmetric: bool
) -> Noise:
    """Check the arguments of a draw."""
    step_at = None
    if isinstance(step, Tensor):
        if step.dtype != torch.int64 or step.numel() != 1 or step.device != ptr.device:
            raise ValueError(f"step: expected one int64 on {ptr.device}, got {step.dtype} {list(step.shape)}")
        step_at, step = step, 0
    if not (0 <= seed < 1 << 64 and 0 <= stream < 1 << 16 and 0 <= step < 1 << 32):
        raise ValueError(
            f"expected 0 <= seed < 2^64, 0 <= stream < 2^16, 0 <= step < 2^32, got {seed}, {stream}, {step}"
        )
    if ptr.dim() != 1 or ptr.numel() == 0:
        raise ValueError(f"ptr: expected [B + 1], got {list(ptr.shape)}")
    if graph_ids is not None:
        if graph_ids.shape != (ptr.shape[0] - 1,):
            raise ValueError(f"graph_ids: expected [{ptr.shape[0] - 1}], one per graph, got {list(graph_ids.shape)}")
        graph_ids = graph_ids.long().contiguous()
    if seed >> 63:
        seed -= 1 << 64  # what a schema's int can hold
    return Noise(ptr.long().contiguous(), graph_ids, step_at, seed, stream, step, symmetric)


def accumulated(dtype: torch.dtype) -> torch.dtype:
    """What the coefficients of an array are computed in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _keep_features(keep: Tensor | None) -> int:
    return 1 if keep is None or keep.dim() == 1 else keep.shape[1]


def _contiguous(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


# ---- the step -------------------------------------------------------------------------------------------------------


def _run_step(
    terms: Sequence[Tensor],
    coefficients: Sequence[Tensor | None],
    scales: Sequence[float],
    diffusion: Tensor | None,
    amplitude: Tensor | None,
    amplitude_scale: float,
    noisy: bool,
    keep: Tensor | None,
    noise: Noise,
    out: Tensor | None = None,
) -> Tensor:
    like = terms[0] if terms else diffusion
    assert like is not None
    if not _native.runs(like):
        value = reference.combine(
            terms, coefficients, scales, diffusion, amplitude, amplitude_scale, noisy, keep, noise
        )
        return value if out is None else out.copy_(value)
    read = [term.contiguous() for term in terms]
    numbers = [None if number is None else number.contiguous() for number in coefficients]
    diffusion = None if diffusion is None else diffusion.contiguous()
    amplitude = None if amplitude is None else amplitude.contiguous()
    keep = None if keep is None else keep.contiguous()
    if out is None:
        out = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    rows, features = like.shape
    _native.call(
        _C.affine_noise_step,
        like,
        *noise.addresses(),
        [term.data_ptr() for term in read],
        [0 if number is None else number.data_ptr() for number in numbers],
        scales,
        noisy,
        0 if diffusion is None else diffusion.data_ptr(),
        0 if amplitude is None else amplitude.data_ptr(),
        amplitude_scale,
        0 if keep is None else keep.data_ptr(),
        _keep_features(keep),
        out.data_ptr(),
        0,
        noise.ptr.shape[0] - 1,
        rows,
        features,
        _native.DTYPES[like.dtype],
    )
    return out


class _Step(NamedTuple):
    """The arguments of the op, which takes them one by one."""

    terms: tuple[Tensor, ...]
    coefficients: tuple[Tensor | None, ...]
    diffusion: Tensor | None
    amplitude: Tensor | None
    keep: Tensor | None
    noise: Noise
    scales: Sequence[float]
    amplitude_scale: float
    noisy: bool

    @staticmethod
    def of(args: Sequence[Any]) -> _Step:
        count = len(args[22])
        diffusion, amplitude, keep, ptr, graph_ids, step_at, scales, amplitude_scale, noisy = args[16:25]
        noise = Noise(ptr, graph_ids, step_at, *args[25:29])
        terms, coefficients = tuple(args[:count]), tuple(args[8 : 8 + count])
        return _Step(terms, coefficients, diffusion, amplitude, keep, noise, scales, amplitude_scale, noisy)

    def flat(self) -> tuple[Any, ...]:
        rest = _NO_TERMS[len(self.terms) :]
        noise = self.noise
        return (
            *(*self.terms, *rest, *self.coefficients, *rest),
            *(self.diffusion, self.amplitude, self.keep, *noise[:3]),
            *(list(self.scales), self.amplitude_scale, self.noisy, *noise[3:]),
        )

    def run(self, out: Tensor | None = None) -> Tensor:
        return _run_step(
            self.terms,
            self.coefficients,
            self.scales,
            self.diffusion,
            self.amplitude,
            self.amplitude_scale,
            self.noisy,
            self.keep,
            self.noise,
            out,
        )

    def moved(self, value: Tensor, kept: Tensor | None = None) -> Tensor:
        """`value` where the state moves, and `kept` or 0 where it is kept."""
        if self.keep is None:
            return value
        keep = self.keep.unsqueeze(1) if self.keep.dim() == 1 else self.keep
        return torch.where(keep, torch.zeros_like(value) if kept is None else kept, value)


def _combined(
    noise: Noise,
    terms: Sequence[Tensor],
    coefficients: Sequence[Tensor | None],
    scales: Sequence[float],
    diffusion: Tensor | None = None,
    amplitude: Tensor | None = None,
    amplitude_scale: float = 0.0,
) -> Tensor:
    """A step within a derivative, where nothing is kept."""
    noisy = diffusion is not None
    step = _Step(tuple(terms), tuple(coefficients), diffusion, amplitude, None, noise, scales, amplitude_scale, noisy)
    return _step(*step.flat())


def _step_vjp(args, grad, needs):
    step = _Step.of(args)
    grads: list[Tensor | None] = [None] * len(args)
    moved = step.moved(grad)
    for k, (coefficient, scale) in enumerate(zip(step.coefficients, step.scales, strict=True)):
        if needs[k]:
            part = _combined(step.noise, [moved], [coefficient], [scale])
            grads[k] = step.moved(part, grad) if k == 0 else part
        if needs[8 + k]:
            grads[8 + k] = scale * _dot(moved, step.terms[k], None, *step.noise, 0)
    if needs[16]:
        grads[16] = _combined(step.noise, [], [], [], moved, step.amplitude, step.amplitude_scale)
    if needs[17]:
        grads[17] = step.amplitude_scale * _dot(moved, step.diffusion, None, *step.noise, 1)
    return tuple(grads)


def _step_jvp(args, tangents):
    step = _Step.of(args)
    count = len(step.terms)
    parts = []
    for terms, coefficients, diffusion, amplitude in (
        (tangents[:count], step.coefficients, tangents[16], step.amplitude),
        (step.terms, tangents[8 : 8 + count], step.diffusion if tangents[17] is not None else None, tangents[17]),
    ):
        along = coefficients if terms is step.terms else terms
        chosen = [k for k in range(count) if along[k] is not None]
        if chosen or diffusion is not None:
            parts.append(
                _combined(
                    step.noise,
                    [terms[k] for k in chosen],
                    [coefficients[k] for k in chosen],
                    [step.scales[k] for k in chosen],
                    diffusion,
                    amplitude,
                    step.amplitude_scale,
                )
            )
    return step.moved(sum(parts[1:], parts[0]), tangents[0])


def _step_vmap(args, in_dims, size):
    # To torch a list of numbers is a tree of arguments, each with a dimension.
    return loop_batch(_step, args, tuple(None if isinstance(d, list) else d for d in in_dims), size)


_step = Op(
    "affine_noise_step",
    f"({', '.join(f'Tensor? y{k}' for k in range(8))}, {', '.join(f'Tensor? c{k}' for k in range(8))}, "
    "Tensor? diffusion, Tensor? amplitude, Tensor? keep, Tensor ptr, Tensor? graph_ids, Tensor? step_at, "
    "float[] scales, float amplitude_scale, bool noisy, int seed, int stream, int step, bool symmetric) -> Tensor",
    lambda *args: _Step.of(args).run(),
    lambda *args: torch.empty_like(args[0] if args[0] is not None else args[16], memory_format=torch.contiguous_format),
    _step_vjp,
    _step_jvp,
    _step_vmap,
)


# ---- the sum over a graph -------------------------------------------------------------------------------------------


def partial_sums(like: Tensor, noise: Noise) -> Tensor | None:
    """Room for the sums over parts of graphs that a CUDA kernel makes first."""
    if not like.is_cuda:
        return None
    return torch.empty(like.numel() // _SUM_CHUNK + noise.ptr.shape[0], dtype=torch.float64, device=like.device)


def _run_dot(a: Tensor, b: Tensor | None, keep: Tensor | None, *rest: Any) -> Tensor:
    noise, power = Noise(*rest[:-1]), rest[-1]
    if not _native.runs(a):
        return reference.dot(a, b, keep, noise, power)
    a, b, keep = _contiguous((a, b, keep))  # type: ignore[assignment]
    graphs = noise.ptr.shape[0] - 1
    out = torch.empty(graphs, dtype=accumulated(a.dtype), device=a.device)
    partial = partial_sums(a, noise)
    _native.call(
        _C.noise_dot,
        a,
        *noise.addresses(),
        # The noise's own square has no factors; `a` is there for its shape.
        a.data_ptr() if power < 2 else 0,
        _native.address(b),
        power,
        _native.address(keep),
        _keep_features(keep),
        out.data_ptr(),
        _native.address(partial),
        graphs,
        *a.shape,
        _native.DTYPES[a.dtype],
    )
    return out


def _dot_vjp(args, grad, needs):
    a, b, _, *rest = args
    noise, power = Noise(*rest[:-1]), rest[-1]
    if power == 2:
        return (None,) * len(args)

    def times(other: Tensor | None) -> Tensor:
        other = torch.ones_like(a) if other is None else other
        if power == 0:
            return _combined(noise, [other], [grad], [1.0])
        return _combined(noise, [], [], [], other, grad, 1.0)

    step = _Step((), (), None, None, args[2], noise, (), 0.0, False)
    grads = [step.moved(times(other)) if needed else None for other, needed in zip((b, a), needs, strict=False)]
    return (*grads, *(None for _ in args[2:]))


def _dot_jvp(args, tangents):
    a, b, *rest = args
    da, db, *_ = tangents
    if rest[-1] == 2:
        return torch.zeros_like(_dot(*args))
    parts = []
    if da is not None:
        parts.append(_dot(da, b, *rest))
    if db is not None:
        parts.append(_dot(a, db, *rest))
    return sum(parts[1:], parts[0])


_dot: Op = Op(
    "noise_dot",
    "(Tensor a, Tensor? b, Tensor? keep, Tensor ptr, Tensor? graph_ids, Tensor? step_at, int seed, int stream, "
    "int step, bool symmetric, int power) -> Tensor",
    _run_dot,
    lambda a, b, keep, ptr, *_: a.new_empty(ptr.shape[0] - 1, dtype=accumulated(a.dtype)),
    _dot_vjp,
    _dot_jvp,
    lambda args, in_dims, size: loop_batch(_dot, args, in_dims, size),
)


def squared_norms(a: Tensor, keep: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor]:
    """Of every graph the sum of squares of an array and of the noise it meets: [B] each."""
    _check_keep(keep, a)
    run = _dot.direct if eager(a) else _dot
    return run(a, a, keep, *noise, 0), run(a.detach(), None, keep, *noise, 2)


# ---- the public face ------------------------------------------------------------------------------------------------


def _check_keep(keep: Tensor | None, like: Tensor) -> None:
    if keep is not None and (keep.dtype is not torch.bool or keep.shape not in (like.shape, like.shape[:1])):
        raise ValueError(
            f"keep: expected bool [N] or [N, F] of {list(like.shape)}, got {keep.dtype} {list(keep.shape)}"
        )


def _per_graph(name: str, number: Tensor, graphs: int, dtype: torch.dtype) -> Tensor:
    """A number of every graph in the accumulation type."""
    if number.shape != (graphs,):
        raise ValueError(f"{name}: expected a number or [{graphs}], one per graph, got {list(number.shape)}")
    return number.to(accumulated(dtype))


def take_step(
    terms: Sequence[Tensor],
    coefficients: Sequence[PerGraph],
    noise: Noise,
    amplitude: PerGraph = 0.0,
    diffusion: Tensor | None = None,
    keep: Tensor | None = None,
    out: Tensor | None = None,
    scales: Sequence[float] | None = None,
) -> Tensor:
    """Check arrays and numbers, and take the step. `scales` multiply coefficients that are per graph."""
    like = terms[0] if terms else diffusion
    if like is None or like.dim() != 2 or len(terms) > MAX_TERMS or len(coefficients) != len(terms):
        raise ValueError(f"a step takes 1 to {MAX_TERMS} arrays [N, F] and as many coefficients, or a diffusion [N, F]")
    # One pass, and few of Python's calls: on a small molecule this is what a step costs.
    shape, dtype, graphs = like.shape, like.dtype, noise.ptr.shape[0] - 1
    numbers: list[Tensor | None] = []
    factors: list[float] = []
    for k, term in enumerate(terms):
        if term.shape != shape or term.dtype is not dtype:
            raise ValueError(f"arrays of a step differ: {list(shape)} {dtype}, {list(term.shape)} {term.dtype}")
        number = coefficients[k]
        if isinstance(number, Tensor):
            numbers.append(_per_graph("coefficient", number, graphs, dtype))
            factors.append(1.0 if scales is None else scales[k])
        else:
            numbers.append(None)
            factors.append(number)
    if diffusion is not None and (diffusion.shape != shape or diffusion.dtype is not dtype):
        raise ValueError(f"diffusion: expected {list(shape)} {dtype}, got {list(diffusion.shape)} {diffusion.dtype}")
    if keep is not None:
        _check_keep(keep, like)
        if not terms:
            raise ValueError("keep: there is no state to keep")
    spread, width = None, 1.0
    if isinstance(amplitude, Tensor):
        spread = _per_graph("noise", amplitude, graphs, dtype)
    else:
        width = amplitude
    noisy = spread is not None or width != 0
    if not noisy:
        diffusion = None
    if eager(*terms, *numbers, diffusion, spread):
        if out is not None and (out.shape != shape or out.dtype is not dtype or not out.is_contiguous()):
            raise ValueError(f"out: expected contiguous {list(shape)} {dtype}, got {list(out.shape)} {out.dtype}")
        return _run_step(terms, numbers, factors, diffusion, spread, width, noisy, keep, noise, out)
    if out is not None:
        raise ValueError("out: a step that is differentiated or traced has a result of its own; leave out out=")
    if spread is not None and diffusion is None:
        diffusion = torch.ones_like(like)  # by which the gradient of the noise's size is a product of two arrays
    step = _Step(tuple(terms), tuple(numbers), diffusion, spread, keep, noise, factors, width, noisy)
    return _step(*step.flat())


def affine_noise_step(
    terms: Sequence[Tensor],
    coefficients: Sequence[PerGraph],
    *,
    ptr: Tensor,
    noise: PerGraph = 0.0,
    diffusion: Tensor | None = None,
    seed: int = 0,
    stream: int = Stream.STEP,
    step: int | Tensor = 0,
    graph_ids: Tensor | None = None,
    keep: Tensor | None = None,
    symmetric: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """``sum_k coefficients[k] terms[k] + noise * diffusion * xi``, in one pass; what all other steps are made of.

    xi are the standard normals of :func:`graphgen.ops.normal`, made in the kernel: a graph's result has the same bits
    in any batch, in any order and on any number of threads. Differentiable in terms, coefficients, noise and diffusion.

    Args:
        terms: up to 8 arrays [N, F] of one dtype: float32, float64 or bfloat16 (computed in float32).
        coefficients: of each term a number, or [B] with one of every graph.
        ptr: [B + 1] row boundaries of the graphs, ending at N.
        noise: size of the noise, a number or [B]; the number 0 draws none.
        diffusion: [N, F] that multiplies the noise, None for 1.
        seed, stream, graph_ids: which noise, see :func:`graphgen.ops.normal`.
        step: which step of it; a tensor with one int64 is read where the kernel runs, so that a captured CUDA graph
            draws anew when it is replayed.
        keep: bool [N] or [N, F]; where True the result is ``terms[0]``, unchanged.
        symmetric: rows are the n * n ordered pairs of a graph's nodes, and both orders get the same noise.
        out: written and returned; may be one of the terms. Only where nothing is differentiated or traced.

    Returns:
        [N, F].

    Raises:
        ValueError: shapes or dtypes that do not fit, numbers out of range, out where a derivative is asked for.
        IndexError: a ptr that does not fit (CPU; a CUDA call does not wait to look).
    """
    key = noise_of(ptr, graph_ids, seed, stream, step, symmetric)
    return take_step(terms, coefficients, key, noise, diffusion, keep, out)
