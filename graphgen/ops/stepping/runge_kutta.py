"""The one pass that joins the stages of a Runge-Kutta method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops._op import eager
from graphgen.ops.reference import stepping as reference
from graphgen.ops.stepping._affine import Noise, PerGraph, accumulated, noise_of, partial_sums, take_step


def rk_combine(
    y: Tensor,
    stages: Sequence[Tensor],
    weights: Sequence[float],
    h: PerGraph,
    *,
    ptr: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """``y + h sum_i weights[i] stages[i]``: the state of a stage or the result of a step.

    Args:
        y, stages: [N, F] each, up to 7 stages; those of weight 0 are not read.
        weights: a row of a tableau's ``a``, or its ``b``.
        h: a number, or [B].
        ptr, out: see :func:`affine_noise_step`.

    Differentiable in y, stages and h.
    """
    if len(stages) != len(weights):
        raise ValueError(f"rk_combine: {len(stages)} stages and {len(weights)} weights")
    chosen = [k for k, weight in enumerate(weights) if weight]
    terms = [y, *(stages[k] for k in chosen)]
    noise = noise_of(ptr, None, 0, 0, 0, False)
    if isinstance(h, Tensor):
        return take_step(
            terms, [1.0, *(h for _ in chosen)], noise, out=out, scales=[1.0, *(weights[k] for k in chosen)]
        )
    return take_step(terms, [1.0, *(h * weights[k] for k in chosen)], noise, out=out)


def _error_norm(
    y: Tensor,
    stages: Sequence[Tensor],
    weights: Sequence[float],
    error_weights: Sequence[float],
    h: PerGraph,
    noise: Noise,
    atol: float,
    rtol: float,
    out: Tensor | None,
) -> Tensor:
    """The scaled error of a step per graph; the step itself goes to `out`, if there is one."""
    factor, number = (1.0, h.to(accumulated(y.dtype)).contiguous()) if isinstance(h, Tensor) else (float(h), None)
    scales, error_scales = [1.0, *(factor * w for w in weights)], [0.0, *(factor * w for w in error_weights)]
    if not _native.runs(y):
        return reference.error_norm(y, stages, weights, error_weights, h, noise.ptr, atol, rtol)
    terms = [y.contiguous(), *(stage.contiguous() for stage in stages)]
    graphs = noise.ptr.shape[0] - 1
    norm = torch.empty(graphs, dtype=accumulated(y.dtype), device=y.device)
    partial = partial_sums(y, noise)
    _native.call(
        _C.embedded_step,
        y,
        noise.ptr.data_ptr(),
        [term.data_ptr() for term in terms],
        [0, *(_native.address(number) for _ in stages)],
        scales,
        error_scales,
        atol,
        rtol,
        _native.address(out),
        norm.data_ptr(),
        _native.address(partial),
        graphs,
        *y.shape,
        _native.DTYPES[y.dtype],
    )
    return norm


def rk_combine_with_error(
    y: Tensor,
    stages: Sequence[Tensor],
    weights: Sequence[float],
    error_weights: Sequence[float],
    h: PerGraph,
    *,
    ptr: Tensor,
    atol: float,
    rtol: float,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The result of a step and, in the same pass, how wrong it is in units of what is tolerated.

    Args:
        y, stages, weights, h, ptr, out: as for :func:`rk_combine`; out may be y.
        error_weights: a tableau's ``error``.
        atol, rtol: what is tolerated of an element: atol + rtol max(|y|, |result|).

    Returns:
        The result [N, F], and of every graph the root mean square of error over tolerance [B] (float32, or float64
        for float64), in a fixed order: a graph's is the same in any batch. 0 for a graph without elements, NaN where
        the state is no longer finite. A step is good where it is at most 1. No gradient goes through it.

    Source: Hairer, Nørsett and Wanner, Solving ODEs I (1993), section II.4.
    """
    if not len(stages) == len(weights) == len(error_weights):
        raise ValueError(f"{len(stages)} stages, {len(weights)} weights and {len(error_weights)} error weights")
    noise = noise_of(ptr, None, 0, 0, 0, False)
    number = h if isinstance(h, Tensor) else None
    arrays = all(stage.shape == y.shape and stage.dtype is y.dtype for stage in stages)
    if not (arrays and y.dim() == 2 and len(stages) < 8 and (number is None or number.shape == (ptr.shape[0] - 1,))):
        raise ValueError("expected y and up to 7 stages [N, F] of one dtype, and h a number or [B]")
    if eager(y, number, *stages) and _native.runs(y):
        result = torch.empty(y.shape, dtype=y.dtype, device=y.device) if out is None else out
        return result, _error_norm(y, stages, weights, error_weights, h, noise, atol, rtol, result)
    result = rk_combine(y, stages, weights, h, ptr=ptr, out=out)
    with torch.no_grad():
        plain = [stage.detach() for stage in stages]
        step = h.detach() if isinstance(h, Tensor) else h
        return result, _error_norm(y.detach(), plain, weights, error_weights, step, noise, atol, rtol, None)
