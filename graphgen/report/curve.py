"""Training curves as inline SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 560, 280
_LEFT, _TOP, _BOTTOM = 64, 14, 50
_LETTER = 9.5
_POINTS = 400
_COLOURS = ("#0f62a8", "#b3541e", "#5b4bb0", "#12704a", "#a8341c", "#6b5900", "#8c2f6b", "#3d5a6c")

Series = Mapping[str, Sequence[tuple[float, float]]]


def curve_svg(series: Series, x_label: str, y_label: str) -> str | None:
    """Curves with axes, ticks and the name of each at its end; None if there are no two finite points.

    Points that are not finite are left out. More than 400 points of one curve are averaged in groups of equal
    size. Curve k takes the colour ``--curve-k`` of the page, from 1.
    """
    finite = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    curves = {name: _thin(points) for name, points in finite.items() if points}
    everything = [point for points in curves.values() for point in points]
    if len(everything) < 2:
        return None
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    x_span, y_span = (min(xs), max(xs)), (min(y_ticks[0], *ys), max(y_ticks[-1], *ys))

    right, floor = _WIDTH - 12 - round(_LETTER * max(map(len, curves))), _HEIGHT - _BOTTOM

    def x_at(x: float) -> float:
        return _LEFT + (x - x_span[0]) / ((x_span[1] - x_span[0]) or 1) * (right - _LEFT)

    def y_at(y: float) -> float:
        return _TOP + (y_span[1] - y) / ((y_span[1] - y_span[0]) or 1) * (floor - _TOP)

    middle = f"translate(13 {(_TOP + floor) / 2}) rotate(-90)"
    label = escape(f"{y_label} by {x_label}")
    parts = [f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for y in y_ticks:
        parts.append(f'<path class="rule" d="M{_LEFT} {y_at(y):.1f}H{right}"/>')
        parts.append(text_svg(f"{y:,.9g}", f'x="{_LEFT - 8}" y="{y_at(y) + 4:.1f}"', "end"))
    for x in x_ticks:
        if x_span[0] <= x <= x_span[1]:
            parts.append(f'<path class="axis" d="M{x_at(x):.1f} {floor}v5"/>')
            parts.append(text_svg(f"{x:,.9g}", f'x="{x_at(x):.1f}" y="{floor + 21}"', "middle"))
    parts.append(f'<path class="axis" d="M{_LEFT} {floor}H{right}"/>')
    parts.append(text_svg(x_label, f'class="label" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}"', "middle"))
    parts.append(text_svg(y_label, f'class="label" transform="{middle}"', "middle"))
    ends = _apart({name: y_at(points[-1][1]) for name, points in curves.items()}, 15)
    for k, (name, points) in enumerate(curves.items(), start=1):
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline style="stroke:var(--curve-{k},currentColor)" points="{path}"/>')
        where = f'class="name" style="fill:var(--curve-{k},currentColor)" x="{right + 7}"'
        parts.append(text_svg(name, f'{where} y="{ends[name] + 4:.1f}"', "start"))
    return "".join((*parts, "</svg>"))


def standalone(svg: str) -> str:
    """A curve as a file of its own, with colours that every viewer can read: few know variables."""
    svg = re.sub(r"var\(--curve-(\d+),currentColor\)", lambda k: _COLOURS[(int(k[1]) - 1) % len(_COLOURS)], svg)
    style = (
        "svg{background:#fff;font:12px system-ui,sans-serif}text{fill:#1a2029}polyline{fill:none;stroke-width:2}"
        ".rule{stroke:#e3e5e9}.axis{stroke:#1a2029}"
    )
    head, body = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1).split(">", 1)
    return f"{head}><style>{style}</style>{body}\n"


def text_svg(text: str, attributes: str, anchor: str) -> str:
    """One line of text at the place that its attributes say."""
    return f'<text {attributes} text-anchor="{anchor}">{escape(text)}</text>'


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / _POINTS)
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``."""
    raw = (high - low) / about or abs(high) / about or 1.0
    unit = float(10 ** math.floor(math.log10(raw)))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """The same heights, moved down where two would overlap."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = max(height, last + gap)
        placed[name] = last
    return placed
