"""The steps of solvers and samplers, each an affine step with coefficients of its own.

All take rows [N, F] of a batch and the options of :func:`affine_noise_step`: ``ptr``, ``seed``, ``stream``, ``step``,
``graph_ids``, ``keep``, ``symmetric`` and ``out``; and raise what it raises. Numbers such as dt are one for all graphs
or [B], one of every graph.
"""

from __future__ import annotations

import math
from typing import Literal, Required, TypedDict, Unpack

import torch
from torch import Tensor

from graphgen.ops.noise import Stream
from graphgen.ops.stepping._affine import Noise, PerGraph, affine_noise_step, noise_of, squared_norms
from graphgen.ops.stepping.sdes import SDE, VE, VP, SubVP, root, wide


class Options(TypedDict, total=False):
    """See :func:`affine_noise_step`."""

    ptr: Required[Tensor]
    seed: int
    stream: int
    step: int | Tensor
    graph_ids: Tensor | None
    keep: Tensor | None
    symmetric: bool
    out: Tensor | None


def _size(dt: PerGraph) -> PerGraph:
    """The deviation of a Brownian motion over dt, whatever its direction."""
    return dt.abs().sqrt() if isinstance(dt, Tensor) else math.sqrt(abs(dt))


def _is_array(diffusion: PerGraph) -> bool:
    return isinstance(diffusion, Tensor) and diffusion.dim() == 2


def _diffuse(
    terms: tuple[Tensor, ...],
    coefficients: tuple[PerGraph, ...],
    diffusion: PerGraph,
    dt: PerGraph,
    options: Options,
) -> Tensor:
    if _is_array(diffusion):
        assert isinstance(diffusion, Tensor)
        return affine_noise_step(terms, coefficients, noise=_size(dt), diffusion=diffusion, **options)
    return affine_noise_step(terms, coefficients, noise=_size(dt) * diffusion, **options)


def euler_maruyama_step(
    x: Tensor, drift: Tensor, dt: PerGraph, diffusion: PerGraph = 1.0, **options: Unpack[Options]
) -> Tensor:
    """``x + drift dt + diffusion sqrt(|dt|) xi``: Euler-Maruyama for dx = drift dt + diffusion dw in the sense of Ito.

    Args:
        x, drift: [N, F].
        dt: of either sign.
        diffusion: a number, [B], or [N, F] for diagonal noise; 0 makes it Euler's step.

    Source: Kloeden and Platen, Numerical Solution of SDEs (1992), section 10.2.
    """
    return _diffuse((x, drift), (1.0, dt), diffusion, dt, options)


def heun_step(
    x: Tensor,
    drift: Tensor,
    drift_end: Tensor,
    dt: PerGraph,
    diffusion: PerGraph = 1.0,
    diffusion_end: PerGraph | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """``x + (drift + drift_end) dt / 2 + (diffusion + diffusion_end) / 2 sqrt(|dt|) xi``: the second half of
    Heun's step for dx = drift dt + diffusion o dw in the sense of Stratonovich.

    The first half is :func:`euler_maruyama_step` with the same options, which draws the same noise; ``drift_end`` and
    ``diffusion_end`` (None: as at the start) are those at its result and at t + dt.

    Source: Kloeden and Platen (1992), section 15.1; Rümelin, SIAM J. Numer. Anal. 19 (1982).
    """
    if diffusion_end is not None:
        if _is_array(diffusion) != _is_array(diffusion_end):
            raise ValueError("heun_step: diffusion and diffusion_end must both be [N, F] or neither")
        diffusion = (diffusion + diffusion_end) / 2
    return _diffuse((x, drift, drift_end), (1.0, dt / 2, dt / 2), diffusion, dt, options)


def _chain_beta(sde: VP, t: PerGraph, dt: PerGraph) -> PerGraph:
    """beta of the link of DDPM's chain that spans dt."""
    beta = sde.beta(t) * wide(dt)
    if not isinstance(beta, Tensor) and beta >= 1:
        raise ValueError(f"beta(t) dt = {beta:.3g}: a chain's link must have less than 1; take smaller steps")
    return beta


Predictor = Literal["euler_maruyama", "reverse_diffusion", "ancestral"]


def reverse_coefficients(sde: SDE, predictor: str, t: PerGraph, dt: PerGraph) -> tuple[PerGraph, PerGraph, PerGraph]:
    """Of x, of the score and of the noise."""
    if predictor == "ancestral" and isinstance(sde, SubVP):
        raise ValueError("reverse_sde_step: sub-VP has no ancestral predictor; use 'reverse_diffusion'")
    if predictor not in ("euler_maruyama", "reverse_diffusion", "ancestral"):
        raise ValueError(f"predictor: expected 'euler_maruyama', 'reverse_diffusion' or 'ancestral', got {predictor!r}")
    if predictor == "euler_maruyama" or isinstance(sde, SubVP):
        variance = sde.diffusion(t) ** 2 * wide(dt)
        return 1.0 - sde.drift(t) * wide(dt), variance, root(variance)
    if isinstance(sde, VE):
        before, after = sde.sigma(t) ** 2, sde.sigma(t - dt) ** 2
        gain = before - after
        return 1.0, gain, root(gain if predictor == "reverse_diffusion" else after * gain / before)
    beta = _chain_beta(sde, t, dt)
    shrink = root(1.0 - beta)
    if predictor == "reverse_diffusion":
        return 2.0 - shrink, beta, root(beta)
    return 1.0 / shrink, beta / shrink, root(beta)


def reverse_sde_step(
    x: Tensor,
    score: Tensor,
    t: PerGraph,
    dt: PerGraph,
    sde: SDE,
    *,
    predictor: Predictor = "euler_maruyama",
    noise_scale: float = 1.0,
    **options: Unpack[Options],
) -> Tensor:
    """One step of dx = (f(x, t) - g(t)^2 score) dt + g(t) dw from t back to t - dt.

    Args:
        x, score: [N, F]; score is that of the density at t.
        t, dt: 0 <= t - dt < t <= 1.
        sde: :class:`VP`, :class:`SubVP` or :class:`VE`.
        predictor: with beta = beta(t) dt and s = sigma(t), s' = sigma(t - dt),
            "euler_maruyama"     x - (f - g^2 score) dt + g sqrt(dt) xi
            "reverse_diffusion"  VP  (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) xi
                                 VE  x + (s^2 - s'^2) score + sqrt(s^2 - s'^2) xi
                                 sub-VP as Euler-Maruyama
            "ancestral"          VP  (x + beta score) / sqrt(1 - beta) + sqrt(beta) xi
                                 VE  x + (s^2 - s'^2) score + s' sqrt(s^2 - s'^2) / s xi
        noise_scale: multiplies the noise; 0 gives the mean, with which samplers end.

    Raises:
        ValueError: an unknown predictor, or one the SDE does not have; beta(t) dt of 1 or more.

    Source: Song et al., ICLR 2021, appendices D to F (algorithms 2 to 4).
    """
    of_x, of_score, of_noise = reverse_coefficients(sde, predictor, t, dt)
    return affine_noise_step((x, score), (of_x, of_score), noise=of_noise * noise_scale, **options)


def probability_flow_step(
    x: Tensor, score: Tensor, t: PerGraph, dt: PerGraph, sde: SDE, **options: Unpack[Options]
) -> Tensor:
    """Euler's step of dx = (f(x, t) - g(t)^2 score / 2) dt, the ODE with the SDE's marginals, from t back to t - dt.

    Arguments as :func:`reverse_sde_step`. Source: Song et al., ICLR 2021, equation 13.
    """
    half = 0.5 * sde.diffusion(t) ** 2 * wide(dt)
    return affine_noise_step((x, score), (1.0 - sde.drift(t) * wide(dt), half), **options)


def chain_coefficients(
    alpha_bar: PerGraph, alpha_bar_next: PerGraph, predicts: str, eta: float, variance: str
) -> tuple[PerGraph, PerGraph, PerGraph]:
    """Of x, of the prediction and of the noise, see :func:`ddpm_step`."""
    if predicts not in ("noise", "data") or variance not in ("posterior", "beta"):
        raise ValueError(
            f"expected predicts 'noise' or 'data' and variance 'posterior' or 'beta', got {predicts!r} and {variance!r}"
        )
    now, after = wide(alpha_bar), wide(alpha_bar_next)
    beta = 1.0 - now / after
    sigma_squared = eta * eta * (1.0 - after) / (1.0 - now) * beta
    direction = root(1.0 - after - sigma_squared)
    if predicts == "noise":
        of_x = root(after / now)
        of_prediction = direction - of_x * root(1.0 - now)
    else:
        of_x = direction / root(1.0 - now)
        of_prediction = root(after) - of_x * root(now)
    if variance == "beta":
        sigma_squared = beta * (after < 1)
    return of_x, of_prediction, root(sigma_squared)


def ddpm_step(
    x: Tensor,
    prediction: Tensor,
    alpha_bar: PerGraph,
    alpha_bar_next: PerGraph,
    *,
    predicts: Literal["noise", "data"] = "noise",
    eta: float = 1.0,
    variance: Literal["posterior", "beta"] = "posterior",
    **options: Unpack[Options],
) -> Tensor:
    """One step of a denoising chain, from a state of signal alpha_bar to one of alpha_bar_next.

    With x0 and eps the data and the noise that x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps is made of, and
    sigma = eta sqrt((1 - alpha_bar_next) / (1 - alpha_bar)) sqrt(1 - alpha_bar / alpha_bar_next):
    ``sqrt(alpha_bar_next) x0 + sqrt(1 - alpha_bar_next - sigma^2) eps + sigma xi``.
    eta = 1 is DDPM's ancestral step, the posterior q(x_next | x, x0); eta = 0 is DDIM; steps may be skipped.

    Args:
        x: [N, F].
        prediction: [N, F], what a network makes of x: eps, or x0 (which may have been clipped).
        alpha_bar, alpha_bar_next: products of 1 - beta so far, 0 < alpha_bar < alpha_bar_next <= 1.
        variance: of xi: sigma^2, or DDPM's other choice beta = 1 - alpha_bar / alpha_bar_next with the same mean and
            none in the last step, to alpha_bar_next = 1 ("fixedlarge").

    Source: Ho et al., NeurIPS 2020, equations 6 and 7; Song, Meng and Ermon, ICLR 2021, equation 12.
    """
    of_x, of_prediction, of_noise = chain_coefficients(alpha_bar, alpha_bar_next, predicts, eta, variance)
    return affine_noise_step((x, prediction), (of_x, of_prediction), noise=of_noise, **options)


def langevin_step(
    x: Tensor, score: Tensor, step_size: PerGraph, *, temperature: float = 1.0, **options: Unpack[Options]
) -> Tensor:
    """``x + step_size score + sqrt(2 step_size temperature) xi``: Langevin's dynamics, whose stationary density is that
    of the score to the power 1 / temperature.

    NCSN's annealed sampler is this with step_size = epsilon (sigma / sigma_last)^2 of each graph's level.

    Source: Song and Ermon, NeurIPS 2019, algorithm 1, in the convention of its code; the paper's step is twice this.
    """
    size = 2.0 * temperature * wide(step_size)
    return affine_noise_step((x, score), (1.0, step_size), noise=root(size), **options)


def corrector_coefficients(
    score: Tensor, keep: Tensor | None, key: Noise, snr: float, alpha: PerGraph, noise_scale: float, norm: str
) -> tuple[Tensor, PerGraph]:
    """Of the score and of the noise."""
    if norm not in ("graph", "batch"):
        raise ValueError(f"norm: expected 'graph' or 'batch', got {norm!r}")
    of_score, of_noise = squared_norms(score, keep, key)
    if norm == "batch":
        of_score, of_noise = (squares.sqrt().mean().square().expand(squares.shape) for squares in (of_score, of_noise))
    ratio = of_noise / of_score.masked_fill(of_score == 0, torch.inf)
    size = ratio * (2.0 * snr * snr * wide(alpha))
    return size, (size * (2.0 * noise_scale * noise_scale)).sqrt() if noise_scale else 0.0


def annealed_langevin_step(
    x: Tensor,
    score: Tensor,
    snr: float,
    *,
    alpha: PerGraph = 1.0,
    noise_scale: float = 1.0,
    norm: Literal["graph", "batch"] = "graph",
    **options: Unpack[Options],
) -> Tensor:
    """A corrector: Langevin's step of the size ``2 alpha (snr |xi| / |score|)^2``, |.| over the rows that move.

    Args:
        x, score: [N, F].
        snr: the ratio of signal to noise.
        alpha: 1 for VE; 1 - beta of the level for VP and sub-VP.
        noise_scale: multiplies the noise (GDSS: scale_eps); 0 gives the mean.
        norm: "graph", each graph by its own norms, so that it does not depend on its batch mates; "batch", all by the
            means of the norms over the batch, as the original does. A graph whose score is 0 stays where it is.

    Reads stream ``CORRECTOR`` unless told otherwise, or ``PAIR_CORRECTOR`` for symmetric noise.

    Source: Song et al., ICLR 2021, algorithms 4 and 5; GDSS (Jo et al., ICML 2022), algorithm 1.
    """
    options.setdefault("stream", Stream.PAIR_CORRECTOR if options.get("symmetric") else Stream.CORRECTOR)
    key = noise_of(
        options["ptr"],
        options.get("graph_ids"),
        options.get("seed", 0),
        options["stream"],
        options.get("step", 0),
        options.get("symmetric", False),
    )
    size, noise = corrector_coefficients(score, options.get("keep"), key, snr, alpha, noise_scale, norm)
    return affine_noise_step((x, score), (1.0, size), noise=noise, **options)
