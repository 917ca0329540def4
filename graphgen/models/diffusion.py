"""The SDEs of Song et al. (ICLR 2021) around labels: from where they are beyond doubt to where they are lost."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.ops.stepping import SDE, VE, VP, SubVP

SDES: dict[str, type[SDE]] = {"vp": VP, "subvp": SubVP, "ve": VE}
SAMPLERS = {"euler": "euler_maruyama", "reverse-diffusion": "reverse_diffusion", "ancestral": "ancestral"}
"""The predictors of :func:`graphgen.solvers.reverse_sde`."""

CERTAIN = 8.0
"""The signal, scale a / b, at which a label is beyond doubt: once in a million atoms a point leaves its cell."""

# Signal is the distance of a label's point from the origin, in deviations of the noise. At 0.025 a label is lost: the
# prior is then within 0.0003 nats per atom of the noised data; at 0.1, the most allowed, within 0.005.
_LOST, _MOST_LEFT = 0.025, 0.1


class Diffusion:
    """An SDE, x(t) = a(t) x0 + b(t) noise, on the times that labels at a distance from the origin need.

    Args:
        sde: "vp", "subvp" or "ve".
        scale: the setting that the distance comes from; spread: the distance of the labels' points from the origin.

    Attributes:
        sde: the :class:`~graphgen.ops.VP`, :class:`~graphgen.ops.SubVP` or :class:`~graphgen.ops.VE`.
        t_min: where the signal, spread a / b, is 8.

    Raises:
        GraphgenError: an SDE that there is not, or a scale that leaves signal at t = 1.
    """

    def __init__(self, sde: str, scale: float, spread: float) -> None:
        if sde not in SDES:
            raise GraphgenError(f"sde {sde!r}: choose one of {', '.join(SDES)}")
        self.name, noise = sde, (spread / CERTAIN, spread / _LOST) if sde == "ve" else ()
        self.sde: SDE = SDES[sde](*noise)
        left = spread * self.ratio(1.0)
        if left > _MOST_LEFT:
            raise GraphgenError(
                f"scale {scale}: the labels still show at t = 1, where samples start from pure noise; "
                f"choose at most {scale * _MOST_LEFT / left:.2g}"
            )
        self.t_min = self.time_of(CERTAIN / spread)

    def levels(self, t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """a and b [B] at times [B]."""
        return torch.as_tensor(self.sde.mean(t), dtype=dtype), torch.as_tensor(self.sde.std(t), dtype=dtype)

    def ratio(self, t: float) -> float:
        """r = a / b."""
        return float(self.sde.mean(t)) / float(self.sde.std(t))

    def time_of(self, ratio: float) -> float:
        """When a / b, which falls, is the ratio."""
        early, late = 0.0, 1.0
        while early < (middle := (early + late) / 2) < late:
            early, late = (middle, late) if self.ratio(middle) > ratio else (early, middle)
        return early

    def check_sampler(self, steps: int, sampler: str, corrections: int, others: tuple[str, ...] = ()) -> None:
        """
        Args:
            others: samplers there are beside the predictors.

        Raises:
            GraphgenError: a sampler that there is not or that the SDE does not have, or too few steps.
        """
        known = (*SAMPLERS, *others)
        if sampler not in known:
            raise GraphgenError(f"sampler {sampler!r}: choose one of {', '.join(known)}")
        if steps < 1 or corrections < 0:
            raise GraphgenError(f"steps ({steps}) must be at least 1 and corrections ({corrections}) at least 0")
        if sampler in others:
            if corrections:
                raise GraphgenError(
                    f"corrections go between the steps of an SDE's sampler; leave them out with {sampler}"
                )
            return
        if sampler == "ancestral" and isinstance(self.sde, SubVP):
            able = ", ".join(name for name in known if name != "ancestral")
            raise GraphgenError(f"sub-VP has no ancestral sampler; choose one of {able}")
        if isinstance(self.sde, VP):
            # A step must leave some of the state: beta dt < 1, with the largest beta, that of t = 1.
            least = math.floor(self.sde.beta_max * (1 - self.t_min)) + 1
            if steps < least:
                raise GraphgenError(f"{steps} steps are too few for {self.name}; take at least {least}")
