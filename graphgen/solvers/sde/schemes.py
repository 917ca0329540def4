"""One step of each method for an SDE; x(t + h) from x(t), with the noise of step k.

Where derivatives of the diffusion are needed they are differences, as in Runge and Kutta's methods: nothing is
differentiated. Products of noise and arrays are rounded one by one, so that bits do not depend on places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from graphgen.solvers.sde.equation import Equation
from graphgen.solvers.sde.parts import Parts


def euler(eq: Equation, k: int, at: int, x: Parts, out: Parts | None) -> Parts:
    """Euler-Maruyama (Kloeden and Platen 1992, section 10.2)."""
    t = eq.clock(at)
    return eq.move(k, x, [(eq.drift(t, x), eq.h)], eq.diffusion(t, x), out)


def heun(eq: Equation, k: int, at: int, x: Parts, out: Parts | None) -> Parts:
    """Heun's method in the sense of Stratonovich (Rümelin, SIAM J. Numer. Anal. 19, 1982)."""
    t, end = eq.clock(at), eq.clock(at, 1.0)
    f, g = eq.drift(t, x), eq.diffusion(t, x)
    there = eq.move(k, x, [(f, eq.h)], g, watched=False)
    f_end, g_end = eq.drift(end, there), eq.diffusion(end, there)
    half = eq.h / 2
    mean = [(a + b) * 0.5 for a, b in zip(g, g_end, strict=True)]
    return eq.move(k, x, [(f, half), (f_end, half)], mean, out)


def milstein_ito(eq: Equation, k: int, at: int, x: Parts, out: Parts | None) -> Parts:
    """Milstein's method without derivatives (Kloeden and Platen 1992, section 11.1)."""
    t = eq.clock(at)
    f, g = eq.drift(t, x), eq.arrays(eq.diffusion(t, x), x)
    there = eq.move(k, x, [(f, eq.h), (g, eq.root)], None, watched=False)
    g_there = eq.arrays(eq.diffusion(t, there), x)
    slope = tuple(a - b for a, b in zip(g_there, g, strict=True))
    return _milstein(eq, k, x, f, g, slope, 1.0, out)


def milstein_stratonovich(eq: Equation, k: int, at: int, x: Parts, out: Parts | None) -> Parts:
    """The same for the other integral, whose square of the noise has a mean: there the difference is a central one."""
    t = eq.clock(at)
    f, g = eq.drift(t, x), eq.arrays(eq.diffusion(t, x), x)
    ahead, behind = (eq.move(k, x, [(g, root)], None, watched=False) for root in (eq.root, -eq.root))
    slope = tuple(
        (a - b) * 0.5
        for a, b in zip(
            *(eq.arrays(eq.diffusion(t, there), x) for there in (ahead, behind)),
            strict=True,
        )
    )
    return _milstein(eq, k, x, f, g, slope, 0.0, out)


def _milstein(
    eq: Equation, k: int, x: Parts, f: Parts, g: Parts, slope: Parts, mean: float, out: Parts | None
) -> Parts:
    """x + h f + root g xi + root slope (xi^2 - mean) / 2"""
    xi = eq.normals(k)
    moved = []
    for p, step in enumerate(eq.steps):
        first, size = eq.weighed(g[p], xi[p])
        second, size_of_slope = eq.weighed(slope[p], (xi[p] * xi[p] - mean) * 0.5)
        target = None if out is None else out[p]
        moved.append(step(k, (x[p], f[p], first, second), (1.0, eq.h, size, size_of_slope), out=target))
    return tuple(moved)


_ROOT_3 = math.sqrt(3.0)


def srk_additive(eq: Equation, k: int, at: int, x: Parts, out: Parts | None) -> Parts:
    """SRA1 (Roessler, SIAM J. Numer. Anal. 48, 2010): strong order 1.5 for noise that does not depend on x."""
    t = eq.clock(at)
    f = eq.drift(t, x)
    g, g_end = (eq.arrays(eq.diffusion(time, x), x) for time in (t, eq.clock(at, 1.0)))
    xi, area = _mean_and_area(eq, k)
    there = []
    for p, step in enumerate(eq.steps):
        term, size = eq.weighed(g_end[p], area[p])
        there.append(step(k, (x[p], f[p], term), (1.0, 0.75 * eq.h, 1.5 * size), watched=False))
    f_there = eq.drift(eq.clock(at, 0.75), tuple(there))
    moved = []
    for p, step in enumerate(eq.steps):
        first, size = eq.weighed(g_end[p], xi[p] - area[p])
        second, size_of_area = eq.weighed(g[p], area[p])
        moved.append(
            step(
                k,
                (x[p], f[p], f_there[p], first, second),
                (1.0, eq.h / 3, eq.h * (2 / 3), size, size_of_area),
                out=None if out is None else out[p],
            )
        )
    return tuple(moved)


def _mean_and_area(eq: Equation, k: int) -> tuple[Parts, Parts]:
    """The increment of Brownian motion and its mean over the step, in units of its deviation."""
    xi, zeta = eq.normals(k), eq.normals(k, area=True)
    return xi, tuple((a + b / _ROOT_3) * 0.5 for a, b in zip(xi, zeta, strict=True))


# SRI2 (Roessler 2010, table 5.2), stage by stage: weights of f and of g so far in the points where the next f and g are
# looked at. The last f has no weight and is not looked at.
_F_NODES = (0.0, 1.0, 0.5)
_G_NODES = (0.0, 0.25, 1.0, 0.25)
_F_OF_F = ((), (1.0,), (0.25, 0.25))
_F_OF_G = ((), (0.0,), (1.0, 0.5))
_G_OF_F = ((), (0.25,), (1.0, 0.0), (0.0, 0.0, 0.25))
_G_OF_G = ((), (-0.5,), (1.0, 0.0), (2.0, -1.0, 0.5))
_ALPHA = (1 / 6, 1 / 6, 2 / 3)
_BETA = ((-1.0, 4 / 3, 2 / 3, 0.0), (1.0, -4 / 3, 1 / 3, 0.0), (2.0, -4 / 3, -2 / 3, 0.0), (-2.0, 5 / 3, -2 / 3, 1.0))


def srk_diagonal(eq: Equation, k: int, at: int, x: Parts, out: Parts | None) -> Parts:
    """SRI2 (Roessler 2010): strong order 1.5 for diagonal or scalar noise in the sense of Ito."""
    xi, area = _mean_and_area(eq, k)
    # I_1, I_11 / sqrt(h), I_10 / h and I_111 / h, in units of sqrt(h).
    integrals = [(a, (a * a - 1.0) * 0.5, b, (a * a - 3.0) * a / 6.0) for a, b in zip(xi, area, strict=True)]
    f: list[Parts] = []
    g: list[Parts] = []

    def point(of_f, of_g, weights: Parts | None) -> Parts:
        """x + h sum of_f f + root sum of_g g, of g times the weights."""
        result = []
        for p, step in enumerate(eq.steps):
            terms, coefficients = [x[p]], [1.0]
            for slope, weight in zip(f, of_f, strict=False):
                if weight:
                    terms.append(slope[p])
                    coefficients.append(eq.h * weight)
            for size, weight in zip(g, of_g, strict=False):
                if weight:
                    term, root = (size[p], eq.root) if weights is None else eq.weighed(size[p], weights[p])
                    terms.append(term)
                    coefficients.append(root * weight)
            result.append(step(k, terms, coefficients, watched=False) if len(terms) > 1 else x[p])
        return tuple(result)

    for stage in range(4):
        if stage < 3:
            at_f = point(_F_OF_F[stage], _F_OF_G[stage], area)
        at_g = point(_G_OF_F[stage], _G_OF_G[stage], None)
        if stage < 3:
            f.append(eq.drift(eq.clock(at, _F_NODES[stage]), at_f))
        g.append(eq.arrays(eq.diffusion(eq.clock(at, _G_NODES[stage]), at_g), x))
    moved = []
    for p, step in enumerate(eq.steps):
        terms, coefficients = [x[p], *(slope[p] for slope in f)], [1.0, *(eq.h * alpha for alpha in _ALPHA)]
        for stage in range(4):
            parts = [beta[stage] * integral for beta, integral in zip(_BETA, integrals[p], strict=True)]
            term, root = eq.weighed(g[stage][p], sum(parts[1:], parts[0]))
            terms.append(term)
            coefficients.append(root)
        moved.append(step(k, terms, coefficients, out=None if out is None else out[p]))
    return tuple(moved)


class Scheme(NamedTuple):
    """What a method is called with, and where it is one."""

    run: Callable[[Equation, int, int, Parts, Parts | None], Parts]
    sense: str
    kinds: tuple[str, ...]


_ALL = ("diagonal", "additive", "scalar", "general")
SCHEMES: dict[str, tuple[Scheme, ...]] = {
    # Where the noise is additive the two senses are one.
    "euler": (Scheme(euler, "ito", _ALL), Scheme(euler, "stratonovich", ("additive",))),
    "heun": (Scheme(heun, "stratonovich", _ALL), Scheme(heun, "ito", ("additive",))),
    "milstein": (
        Scheme(euler, "ito", ("additive",)),
        Scheme(euler, "stratonovich", ("additive",)),
        Scheme(milstein_ito, "ito", ("diagonal", "scalar")),
        Scheme(milstein_stratonovich, "stratonovich", ("diagonal", "scalar")),
    ),
    "srk": (
        Scheme(srk_additive, "ito", ("additive",)),
        Scheme(srk_additive, "stratonovich", ("additive",)),
        Scheme(srk_diagonal, "ito", ("diagonal", "scalar")),
    ),
}


def scheme(method: str, sense: str, kind: str) -> Scheme:
    """The method for this noise.

    Raises:
        ValueError: an unknown name, or a method that does not solve this equation; says what does.
    """
    if sense not in ("ito", "stratonovich") or kind not in _ALL:
        raise ValueError(
            f"sdeint: expected sense 'ito' or 'stratonovich' and noise {', '.join(_ALL)}; got {sense!r} and {kind!r}"
        )
    if method not in SCHEMES:
        raise ValueError(f"sdeint: method must be one of {', '.join(SCHEMES)}, got {method!r}")
    for one in SCHEMES[method]:
        if one.sense == sense and kind in one.kinds:
            return one
    able = [name for name, some in SCHEMES.items() for one in some if one.sense == sense and kind in one.kinds]
    raise ValueError(f"sdeint: {method!r} is not for {kind} noise in the sense of {sense}; take {' or '.join(able)}")
