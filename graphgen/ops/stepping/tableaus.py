"""Explicit Runge-Kutta methods: their coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit method, with an embedded one where the steps of a solve are to be chosen by the error.

    Stage i is f(t + c[i] h, y + h sum_j a[i][j] stage_j); the result is y + h sum_i b[i] stage_i and differs from the
    embedded method's by h sum_i error[i] stage_i. The norm of this goes with h^error_order. With ``fsal`` the
    last stage is the first of the next step. Between the ends of a step the solution is
    y + h sum_i p_i(theta) stage_i, ``p_i(theta) = sum_n dense[i][n] theta^(n + 1)``, to the order of the method.
    """

    order: int
    error_order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    error: Row
    fsal: bool
    dense: tuple[Row, ...]


def _hermite(b: Row, last: int, quartic: Sequence[float] = ()) -> tuple[Row, ...]:
    """The polynomials of the interpolant through both ends with the slopes at stage 0 and stage `last`.

    ``quartic`` are the weights of theta^2 (1 - theta)^2, which vanishes at the ends with its slope.
    """
    rows = []
    for i, weight in enumerate(b):
        first, end = float(i == 0), float(i == last)
        bump = quartic[i] if quartic else 0.0
        square = 3 * weight - 2 * first - end + bump
        cube = -2 * weight + first + end - 2 * bump
        rows.append((first, square, cube, bump) if quartic else (first, square, cube))
    return tuple(rows)


EULER = Tableau(1, 0, (0.0,), ((),), (1.0,), (), False, ((1.0,),))
MIDPOINT = Tableau(2, 0, (0.0, 1 / 2), ((), (1 / 2,)), (0.0, 1.0), (), False, ((1.0, -1.0), (0.0, 1.0)))

# Kutta's classical method.
RK4 = Tableau(
    4,
    0,
    (0.0, 1 / 2, 1 / 2, 1.0),
    ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    (),
    False,
    ((1.0, -3 / 2, 2 / 3), (0.0, 1.0, -2 / 3), (0.0, 1.0, -2 / 3), (0.0, -1 / 2, 2 / 3)),
)

# Heun's method with Euler's embedded.
HEUN = Tableau(2, 2, (0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2), (-1 / 2, 1 / 2), False, ((1.0, -1 / 2), (0.0, 1 / 2)))

# Bogacki and Shampine, Appl. Math. Lett. 2 (1989).
_BOSH3_B = (2 / 9, 1 / 3, 4 / 9, 0.0)
BOSH3 = Tableau(
    3,
    3,
    (0.0, 1 / 2, 3 / 4, 1.0),
    ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    _BOSH3_B,
    (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    True,
    _hermite(_BOSH3_B, 3),
)

# Dormand and Prince, J. Comput. Appl. Math. 6 (1980); the interpolant is that of Hairer, Nørsett and Wanner, Solving
# ODEs I (1993), section II.6.
_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_DOPRI5_EMBEDDED = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_DOPRI5_QUARTIC = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)
DOPRI5 = Tableau(
    5,
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _DOPRI5_B[:6],
    ),
    _DOPRI5_B,
    tuple(b - embedded for b, embedded in zip(_DOPRI5_B, _DOPRI5_EMBEDDED, strict=True)),
    True,
    _hermite(_DOPRI5_B, 6, _DOPRI5_QUARTIC),
)

# Tsitouras, Comput. Math. Appl. 62 (2011), table 1 and section 6.
_TSIT5_B = (
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
    0.0,
)
TSIT5 = Tableau(
    5,
    5,
    (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    (
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        _TSIT5_B[:6],
    ),
    _TSIT5_B,
    (
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    True,
    (
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.13169999999999998, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
)

TABLEAUS = {"heun": HEUN, "bosh3": BOSH3, "dopri5": DOPRI5, "tsit5": TSIT5}  # those that tell their error
METHODS = {"euler": EULER, "midpoint": MIDPOINT, "rk4": RK4, **TABLEAUS}
