"""Solver steps in plain torch, written as their equations are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen.ops.reference.noise import normal

PerGraph = float | Tensor


def _rows(number: PerGraph, ptr: Tensor, like: Tensor) -> PerGraph:
    """A number of every graph at every row."""
    if not isinstance(number, Tensor):
        return number
    return number.to(like.dtype).repeat_interleave(ptr.diff()).unsqueeze(1)


def _wide(array: Tensor) -> Tensor:
    return array if array.dtype is torch.float64 else array.float()


def _graph_sum(x: Tensor, ptr: Tensor) -> Tensor:
    batch = torch.arange(ptr.numel() - 1, device=ptr.device).repeat_interleave(ptr.diff())
    return x.new_zeros(ptr.numel() - 1).index_add(0, batch, x.sum(1))


def draw(noise: Any, like: Tensor) -> Tensor:
    """The normals of a step, see :func:`graphgen.ops.normal`."""
    step = noise.step + (0 if noise.step_at is None else int(noise.step_at))
    seed, step = noise.seed & 0xFFFFFFFFFFFFFFFF, step & 0xFFFFFFFF
    xi = normal(noise.ptr, like.shape[1], seed, noise.stream, step, noise.graph_ids, symmetric=noise.symmetric)
    return xi.to(like.dtype)


def combine(
    terms: Sequence[Tensor],
    coefficients: Sequence[Tensor | None],
    scales: Sequence[float],
    diffusion: Tensor | None,
    amplitude: Tensor | None,
    amplitude_scale: float,
    noisy: bool,
    keep: Tensor | None,
    noise: Any,
) -> Tensor:
    """What the engine's kernel of that name does, argument by argument."""
    like = terms[0] if terms else diffusion
    assert like is not None
    value = torch.zeros_like(_wide(like))
    for term, coefficient, scale in zip(terms, coefficients, scales, strict=True):
        factor = scale if coefficient is None else scale * _rows(coefficient, noise.ptr, value)
        value = value + factor * _wide(term)
    if noisy:
        factor = amplitude_scale if amplitude is None else amplitude_scale * _rows(amplitude, noise.ptr, value)
        value = value + (factor if diffusion is None else factor * _wide(diffusion)) * draw(noise, value)
    if keep is not None:
        value = torch.where(keep.unsqueeze(1) if keep.dim() == 1 else keep, _wide(terms[0]), value)
    return value.to(like.dtype)


def dot(a: Tensor, b: Tensor | None, keep: Tensor | None, noise: Any, power: int) -> Tensor:
    """Of every graph the sum of a b xi^power; of xi^2 alone where power is 2."""
    value = torch.ones_like(_wide(a)) if power == 2 else _wide(a)
    if b is not None:
        value = value * _wide(b)
    if power:
        value = value * draw(noise, value) ** power
    if keep is not None:
        value = value.masked_fill(keep.unsqueeze(1) if keep.dim() == 1 else keep, 0)
    return _graph_sum(value, noise.ptr)


def error_norm(
    y: Tensor,
    stages: Sequence[Tensor],
    weights: Sequence[float],
    error_weights: Sequence[float],
    h: PerGraph,
    ptr: Tensor,
    atol: float,
    rtol: float,
) -> Tensor:
    """The second result of :func:`graphgen.ops.rk_combine_with_error`."""
    y, h = _wide(y), _rows(h, ptr, _wide(y))
    step = sum((weight * _wide(stage) for weight, stage in zip(weights, stages, strict=True)), torch.zeros_like(y))
    error = sum((weight * _wide(stage) for weight, stage in zip(error_weights, stages, strict=True)), y * 0)
    ratio = h * error / (atol + rtol * torch.maximum(y.abs(), (y + h * step).abs()))
    return (_graph_sum(ratio * ratio, ptr) / (ptr.diff() * y.shape[1]).clamp(min=1)).sqrt()


# ---- the public steps -----------------------------------------------------------------------------------------------


class _Batch:
    """What the options of a step say: rows of numbers, noise, and what is kept."""

    def __init__(
        self,
        like: Tensor,
        stream: int = 6,
        *,
        ptr: Tensor,
        seed: int = 0,
        step: int | Tensor = 0,
        graph_ids: Tensor | None = None,
        keep: Tensor | None = None,
        symmetric: bool = False,
        out: Tensor | None = None,
    ) -> None:
        self.like, self.ptr, self.out = like, ptr.long(), out
        self.keep = keep.unsqueeze(1) if keep is not None and keep.dim() == 1 else keep
        self.key = (seed, stream, int(step) & 0xFFFFFFFF, graph_ids)
        self.symmetric = symmetric

    def at_rows(self, number: PerGraph) -> Tensor:
        """A number per graph at every row, in float64; an array as it is."""
        if isinstance(number, Tensor) and number.dim() == 2:
            return number.double()
        if isinstance(number, Tensor):
            return number.double().repeat_interleave(self.ptr.diff()).unsqueeze(1)
        return torch.tensor(float(number), dtype=torch.float64, device=self.like.device)

    def noise(self) -> Tensor:
        return normal(self.ptr, self.like.shape[1], *self.key, torch.float64, self.symmetric)

    def finish(self, value: Tensor, x: Tensor | None = None) -> Tensor:
        if self.keep is not None and x is not None:
            value = torch.where(self.keep, x.double(), value)
        value = value.to(self.like.dtype)
        return value if self.out is None else self.out.copy_(value)


def affine_noise_step(
    terms: Sequence[Tensor],
    coefficients: Sequence[PerGraph],
    *,
    noise: PerGraph = 0.0,
    diffusion: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """See :func:`graphgen.ops.affine_noise_step`."""
    like = terms[0] if terms else diffusion
    assert like is not None
    batch = _Batch(like, **options)
    value = batch.at_rows(noise) * batch.noise()
    if diffusion is not None:
        value = value * diffusion.double()
    for term, coefficient in zip(terms, coefficients, strict=True):
        value = value + batch.at_rows(coefficient) * term.double()
    return batch.finish(value, terms[0] if terms else None)


def euler_maruyama_step(x: Tensor, drift: Tensor, dt: PerGraph, diffusion: PerGraph = 1.0, **options: Any) -> Tensor:
    """See :func:`graphgen.ops.euler_maruyama_step`."""
    batch = _Batch(x, **options)
    span, g = batch.at_rows(dt), batch.at_rows(diffusion)
    return batch.finish(x.double() + drift.double() * span + g * span.abs().sqrt() * batch.noise(), x)


def heun_step(
    x: Tensor,
    drift: Tensor,
    drift_end: Tensor,
    dt: PerGraph,
    diffusion: PerGraph = 1.0,
    diffusion_end: PerGraph | None = None,
    **options: Any,
) -> Tensor:
    """See :func:`graphgen.ops.heun_step`."""
    if diffusion_end is not None:
        diffusion = (diffusion + diffusion_end) / 2
    return euler_maruyama_step(x, (drift.double() + drift_end.double()) / 2, dt, diffusion, **options)


def reverse_sde_step(
    x: Tensor,
    score: Tensor,
    t: PerGraph,
    dt: PerGraph,
    sde: Any,
    *,
    predictor: str = "euler_maruyama",
    noise_scale: float = 1.0,
    **options: Any,
) -> Tensor:
    """See :func:`graphgen.ops.reverse_sde_step`."""
    batch = _Batch(x, **options)
    start, span = batch.at_rows(t), batch.at_rows(dt)
    x64, s, xi = x.double(), score.double(), noise_scale * batch.noise()
    exploding, sub = hasattr(sde, "sigma"), type(sde).__name__ == "SubVP"
    if predictor == "euler_maruyama" or sub:
        g = sde.diffusion(start)
        value = x64 - (sde.drift(start) * x64 - g * g * s) * span + g * span.sqrt() * xi
    elif exploding:
        before, after = sde.sigma(start), sde.sigma(start - span)
        gain = before**2 - after**2
        size = gain.sqrt() if predictor == "reverse_diffusion" else (after**2 * gain / before**2).sqrt()
        value = x64 + gain * s + size * xi
    else:
        beta = sde.beta(start) * span
        if predictor == "reverse_diffusion":
            value = (2 - (1 - beta).sqrt()) * x64 + beta * s + beta.sqrt() * xi
        else:
            value = (x64 + beta * s) / (1 - beta).sqrt() + beta.sqrt() * xi
    return batch.finish(value, x)


def probability_flow_step(x: Tensor, score: Tensor, t: PerGraph, dt: PerGraph, sde: Any, **options: Any) -> Tensor:
    """See :func:`graphgen.ops.probability_flow_step`."""
    batch = _Batch(x, **options)
    start, span = batch.at_rows(t), batch.at_rows(dt)
    velocity = sde.drift(start) * x.double() - 0.5 * sde.diffusion(start) ** 2 * score.double()
    return batch.finish(x.double() - velocity * span, x)


def ddpm_step(
    x: Tensor,
    prediction: Tensor,
    alpha_bar: PerGraph,
    alpha_bar_next: PerGraph,
    *,
    predicts: str = "noise",
    eta: float = 1.0,
    variance: str = "posterior",
    **options: Any,
) -> Tensor:
    """See :func:`graphgen.ops.ddpm_step`."""
    batch = _Batch(x, **options)
    now, after, x64, predicted = (
        batch.at_rows(alpha_bar),
        batch.at_rows(alpha_bar_next),
        x.double(),
        prediction.double(),
    )
    if predicts == "noise":
        data, eps = (x64 - (1 - now).sqrt() * predicted) / now.sqrt(), predicted
    else:
        data, eps = predicted, (x64 - now.sqrt() * predicted) / (1 - now).sqrt()
    sigma = eta * ((1 - after) / (1 - now)).sqrt() * (1 - now / after).sqrt()
    size = sigma if variance == "posterior" else (1 - now / after).sqrt() * (after < 1)
    value = after.sqrt() * data + (1 - after - sigma**2).sqrt() * eps + size * batch.noise()
    return batch.finish(value, x)


def langevin_step(x: Tensor, score: Tensor, step_size: PerGraph, *, temperature: float = 1.0, **options: Any) -> Tensor:
    """See :func:`graphgen.ops.langevin_step`."""
    batch = _Batch(x, **options)
    size = batch.at_rows(step_size)
    return batch.finish(x.double() + size * score.double() + (2 * size * temperature).sqrt() * batch.noise(), x)


def annealed_langevin_step(
    x: Tensor,
    score: Tensor,
    snr: float,
    *,
    alpha: PerGraph = 1.0,
    noise_scale: float = 1.0,
    norm: str = "graph",
    **options: Any,
) -> Tensor:
    """See :func:`graphgen.ops.annealed_langevin_step`."""
    options.setdefault("stream", 9 if options.get("symmetric") else 7)
    batch = _Batch(x, **options)
    s, xi = score.double(), batch.noise()
    moving = torch.ones_like(s) if batch.keep is None else (~batch.keep).expand_as(s).double()
    of_score, of_noise = (_graph_sum(moving * array**2, batch.ptr).sqrt() for array in (s, xi))
    if norm == "batch":
        of_score, of_noise = (sizes.mean().expand(sizes.shape) for sizes in (of_score, of_noise))
    size = 2 * alpha * (snr * of_noise / of_score) ** 2
    size = batch.at_rows(torch.where(of_score > 0, size, 0.0))
    return batch.finish(x.double() + size * s + (2 * size).sqrt() * noise_scale * xi, x)


def rk_combine(
    y: Tensor,
    stages: Sequence[Tensor],
    weights: Sequence[float],
    h: PerGraph,
    *,
    ptr: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """See :func:`graphgen.ops.rk_combine`."""
    batch = _Batch(y, ptr=ptr, out=out)
    slope = sum((w * stage.double() for w, stage in zip(weights, stages, strict=True)), torch.zeros_like(y).double())
    return batch.finish(y.double() + batch.at_rows(h) * slope)


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
    """See :func:`graphgen.ops.rk_combine_with_error`."""
    norm = error_norm(y, stages, weights, error_weights, h, ptr, atol, rtol)
    return rk_combine(y, stages, weights, h, ptr=ptr, out=out), norm
