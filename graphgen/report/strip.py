"""A molecule on its way from noise, as a row of inline SVG drawings."""

from __future__ import annotations

import re

import torch
from rdkit import Chem, rdBase
from rdkit.Chem import rdCoordGen

from graphgen.molecules.codec import decode
from graphgen.molecules.trajectory import Trajectory

_SIZE = 150
_MARGIN = 20
_BOND = 30.0  # at most, in the units of the drawing
_FAINTEST = 0.12
_CHARGED = re.compile(r"([A-Z][a-z]?)([+-]?)(\d*)")


def strip_svgs(trajectory: Trajectory) -> list[str]:
    """One SVG for each time: every atom as its most likely type, as opaque as that is likely; bonds likewise.

    All share the layout of the end, in which atoms do not move. Atoms of element Z take the colour ``--atom-Z``.
    """
    places = _layout(trajectory)
    return [_drawing(trajectory, t, places) for t in range(len(trajectory.times))]


def _drawing(trajectory: Trajectory, t: int, places: list[tuple[float, float]]) -> str:
    atoms, bonds = trajectory.atoms[t], trajectory.bonds[t]
    parts = [f'<svg class="frame" viewBox="0 0 {_SIZE} {_SIZE}" aria-hidden="true">']
    chances, kinds = bonds.max(1) if len(bonds) else (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for (u, v), chance, order in zip(trajectory.pairs, chances.tolist(), kinds.tolist(), strict=True):
        parts += _lines(places[u], places[v], order, chance)
    for place, chance, label in zip(places, *(x.tolist() for x in atoms.max(1)), strict=True):
        parts.append(_atom(place, trajectory.names[label], chance))
    return "".join((*parts, "</svg>"))


def _lines(a: tuple[float, float], b: tuple[float, float], order: int, chance: float) -> list[str]:
    along = (b[0] - a[0], b[1] - a[1])
    length = (along[0] ** 2 + along[1] ** 2) ** 0.5 or 1.0
    side = (-along[1] / length * 2.6, along[0] / length * 2.6)
    return [
        f'<path class="bond" style="opacity:{chance:.2f}" d="M{a[0] + s * side[0]:.1f} {a[1] + s * side[1]:.1f}'
        f'L{b[0] + s * side[0]:.1f} {b[1] + s * side[1]:.1f}"/>'
        for s in {0: (), 1: (0,), 2: (-0.7, 0.7), 3: (-1.3, 0, 1.3)}[order]
    ]


def _atom(place: tuple[float, float], name: str, chance: float) -> str:
    symbol, sign, size = _CHARGED.fullmatch(name).groups()  # type: ignore[union-attr]
    colour = f"var(--atom-{Chem.GetPeriodicTable().GetAtomicNumber(symbol)},currentColor)"
    raised = f'<tspan class="charge" dy="-4">{size}{sign}</tspan>' if sign else ""
    x, y = place
    opacity = max(chance, _FAINTEST)
    # The disc hides the ends of bonds, whatever its atom's opacity.
    return (
        f'<circle class="under" cx="{x:.1f}" cy="{y:.1f}" r="9.5"/>'
        f'<g style="opacity:{opacity:.2f};color:{colour}"><title>{name}: {100 * chance:.0f} %</title>'
        f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="9.5"/>'
        f'<text x="{x:.1f}" y="{y + 4.2:.1f}" text-anchor="middle">{symbol}{raised}</text></g>'
    )


def _layout(trajectory: Trajectory) -> list[tuple[float, float]]:
    order = trajectory.bonds[-1].argmax(1).tolist() if trajectory.pairs else []
    bonds = [(u, v, kind - 1) for (u, v), kind in zip(trajectory.pairs, order, strict=True) if kind]
    mol = decode([("C", 0)] * trajectory.atoms.shape[1], bonds)
    with rdBase.BlockLogs():
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        rdCoordGen.AddCoords(mol)
    points = mol.GetConformer().GetPositions()[:, :2]
    low, high = points.min(0), points.max(0)
    if (high - low)[1] > (high - low)[0]:
        # Drawings are square, so nothing is lost, and rows of drawings look alike.
        points = points[:, ::-1]
        low, high = low[::-1], high[::-1]
    lengths = [float(((points[u] - points[v]) ** 2).sum() ** 0.5) for u, v, _ in bonds]
    scale = (_SIZE - 2 * _MARGIN) / max(float((high - low).max()), 1e-9)
    if lengths:
        scale = min(scale, _BOND / (sum(lengths) / len(lengths)))
    middle = (low + high) / 2
    return [tuple((_SIZE / 2 + (point - middle) * scale).tolist()) for point in points]
