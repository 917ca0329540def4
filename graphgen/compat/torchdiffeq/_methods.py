"""The methods of torchdiffeq that run on graphgen's steps."""

from __future__ import annotations

from dataclasses import dataclass

from graphgen.ops.stepping import BOSH3, DOPRI5, EULER, HEUN, MIDPOINT

Row = tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """A tableau as in :class:`graphgen.ops.stepping.Tableau`; error and middle are those of the adaptive methods.

    The state in the middle of a step is y + h sum_i middle[i] stage_i. The last slope serves as the first of the next
    step, whether it is that of the result or not.
    """

    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    error: Row = ()
    middle: Row = ()

    @property
    def last_stage_is_result(self) -> bool:
        return self.b == (*self.a[-1], 0.0)

    def between(self, x: float) -> Row:
        """Weights of the slopes for the state at x in [0, 1] of a step: the quartic through both ends, with the slopes
        there, and the middle."""
        rows = []
        for i, (b, m) in enumerate(zip(self.b, self.middle, strict=True)):
            first, last = float(i == 0), float(i == len(self.b) - 1)
            quartic = 2 * (last - first) - 8 * b + 16 * m
            cubic = 5 * first - 3 * last + 14 * b - 32 * m
            square = last - 4 * first - 5 * b + 16 * m
            rows.append((((quartic * x + cubic) * x + square) * x + first) * x)
        return tuple(rows)


# Shampine's companion and middle: Math. Comp. 46 (1986).
_DOPRI5_COMPANION = (1951 / 21600, 0.0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60)
_DOPRI5_MIDDLE = (
    6025192743 / 30085553152 / 2,
    0.0,
    51252292925 / 65400821598 / 2,
    -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2,
    -1776094331 / 19743644256 / 2,
    11237099 / 235043384 / 2,
)

ADAPTIVE = {
    "dopri5": Method(
        5,
        DOPRI5.c,
        DOPRI5.a,
        DOPRI5.b,
        tuple(b - other for b, other in zip(DOPRI5.b, _DOPRI5_COMPANION, strict=True)),
        _DOPRI5_MIDDLE,
    ),
    "bosh3": Method(3, BOSH3.c, BOSH3.a, BOSH3.b, BOSH3.error, (0.0, 1 / 2, 0.0, 0.0)),
    "fehlberg2": Method(
        2,
        (0.0, 1 / 2, 1.0),
        ((), (1 / 2,), (1 / 256, 255 / 256)),
        (1 / 512, 255 / 256, 1 / 512),
        (-1 / 512, 0.0, 1 / 512),
        (0.0, 1 / 2, 0.0),
    ),
    "adaptive_heun": Method(2, HEUN.c, HEUN.a, HEUN.b, HEUN.error, (1 / 2, 0.0)),
}

FIXED = {
    "euler": Method(1, EULER.c, EULER.a, EULER.b),
    "midpoint": Method(2, MIDPOINT.c, MIDPOINT.a, MIDPOINT.b),
    "heun2": Method(2, HEUN.c, HEUN.a, HEUN.b),
    "heun3": Method(3, (0.0, 1 / 3, 2 / 3), ((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4)),
    # Kutta's rule of three eighths.
    "rk4": Method(
        4, (0.0, 1 / 3, 2 / 3, 1.0), ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    ),
}
