"""A molecule on its way from noise, as a row of inline SVG drawings."""

from __future__ import annotations

import re

import numpy as np
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import rdCoordGen

from graphgen.molecules.codec import decode
from graphgen.molecules.trajectory import Trajectory

# In radii of an atom, the unit of these drawings.
_BOND = 3.1
_MARGIN = 1.4
_NARROWEST = 13.0
_FAINTEST = 0.12
_LINE = 0.27  # half the distance of the lines of a double bond
_CHARGED = re.compile(r"([A-Z][a-z]?)([+-]?)(\d*)")


Point = tuple[float, float]


def strip_svgs(trajectory: Trajectory) -> list[str]:
    """One SVG for each time: every atom as its most likely type, as opaque as that is likely; bonds likewise.

    All share the layout of the end, in which atoms do not move. Atoms of element Z take the colour ``--atom-Z``.
    """
    places, size = _layout(trajectory)
    return [_drawing(trajectory, t, places, size) for t in range(len(trajectory.times))]


def _drawing(trajectory: Trajectory, t: int, places: list[Point], size: Point) -> str:
    atoms, bonds = trajectory.atoms[t], trajectory.bonds[t]
    parts = [f'<svg class="frame" viewBox="0 0 {size[0]:.2f} {size[1]:.2f}" aria-hidden="true">']
    chances, kinds = bonds.max(1) if len(bonds) else (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for (u, v), chance, order in zip(trajectory.pairs, chances.tolist(), kinds.tolist(), strict=True):
        parts += _lines(places[u], places[v], order, chance)
    for place, chance, label in zip(places, *(x.tolist() for x in atoms.max(1)), strict=True):
        parts.append(_atom(place, trajectory.names[label], chance))
    return "".join((*parts, "</svg>"))


def _lines(a: Point, b: Point, order: int, chance: float) -> list[str]:
    along = (b[0] - a[0], b[1] - a[1])
    length = (along[0] ** 2 + along[1] ** 2) ** 0.5 or 1.0
    side = (-along[1] / length * _LINE, along[0] / length * _LINE)
    return [
        f'<path class="bond" style="opacity:{chance:.2f}" d="M{a[0] + s * side[0]:.2f} {a[1] + s * side[1]:.2f}'
        f'L{b[0] + s * side[0]:.2f} {b[1] + s * side[1]:.2f}"/>'
        for s in {0: (), 1: (0,), 2: (-1, 1), 3: (-1.7, 0, 1.7)}[order]
    ]


def _atom(place: Point, name: str, chance: float) -> str:
    symbol, sign, size = _CHARGED.fullmatch(name).groups()  # type: ignore[union-attr]
    colour = f"var(--atom-{Chem.GetPeriodicTable().GetAtomicNumber(symbol)},currentColor)"
    raised = f'<tspan class="charge" dy="-.4">{size}{sign}</tspan>' if sign else ""
    x, y = place
    opacity = max(chance, _FAINTEST)
    # The disc hides the ends of bonds, whatever its atom's opacity.
    return (
        f'<circle class="under" cx="{x:.2f}" cy="{y:.2f}" r="1"/>'
        f'<g style="opacity:{opacity:.2f};color:{colour}"><title>{name}: {100 * chance:.0f} %</title>'
        f'<circle class="disc" cx="{x:.2f}" cy="{y:.2f}" r="1"/>'
        f'<text x="{x:.2f}" y="{y + 0.44:.2f}" text-anchor="middle">{symbol}{raised}</text></g>'
    )


def _layout(trajectory: Trajectory) -> tuple[list[Point], Point]:
    """Where every atom is, and how wide and high the drawing."""
    order = trajectory.bonds[-1].argmax(1).tolist() if trajectory.pairs else []
    bonds = [(u, v, kind - 1) for (u, v), kind in zip(trajectory.pairs, order, strict=True) if kind]
    if not trajectory.atoms.shape[1]:
        return [], (_NARROWEST, 2 * _MARGIN)
    mol = decode([("C", 0)] * trajectory.atoms.shape[1], bonds)
    with rdBase.BlockLogs():
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        rdCoordGen.AddCoords(mol)
    points = mol.GetConformer().GetPositions()[:, :2]
    if np.ptp(points[:, 1]) > np.ptp(points[:, 0]):
        # Lying, molecules fill a row better.
        points = points[:, ::-1]
    lengths = [float(np.linalg.norm(points[u] - points[v])) for u, v, _ in bonds]
    points = (points - points.min(0)) * (_BOND / (np.median(lengths) if lengths else 1.0)) + _MARGIN
    width, height = (points.max(0) + _MARGIN).tolist()
    room = max(_NARROWEST - width, 0.0)
    return [(x + room / 2, y) for x, y in points.tolist()], (width + room, height)
