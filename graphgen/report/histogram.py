"""Histograms of two sets as inline SVG: the reference as an area, what was generated as an outline on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from graphgen.metrics.distribution import Histogram
from graphgen.report.curve import text_svg, ticks

_WIDTH, _HEIGHT = 330, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 28
_KINDS = 10


def histogram_svg(histogram: Histogram) -> str:
    """Bins as steps, kinds as bars side by side, at most ten; shares in per cent.

    The first set takes the class ``own`` of the page, the second ``rest``.
    """
    kinds = [str(x) for x in histogram.bins] if all(isinstance(x, str) for x in histogram.bins) else None
    shares = {name: [100 * share for share in values] for name, values in histogram.shares.items()}
    if kinds is not None and len(kinds) > _KINDS:
        kinds = [*kinds[: _KINDS - 1], "other"]
        shares = {name: [*values[: _KINDS - 1], sum(values[_KINDS - 1 :])] for name, values in shares.items()}
    top = max((max(values) for values in shares.values()), default=0.0) or 1.0
    y_ticks = [y for y in ticks(0, top, 4) if y <= top * 1.02]
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def y_at(y: float) -> float:
        return floor - y / top * (floor - _TOP)

    label = escape(f"{histogram.name}: {' and '.join(shares)}, per cent")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for y in y_ticks:
        parts.append(f'<path class="rule" d="M{_LEFT} {y_at(y):.1f}H{right}"/>')
        parts.append(text_svg(f"{y:,.9g}", f'x="{_LEFT - 6}" y="{y_at(y) + 4:.1f}"', "end"))
    if kinds is not None:
        parts += _bars(kinds, shares, right, floor, y_at)
    else:
        parts += _steps([float(x) for x in histogram.bins], shares, right, floor, y_at)
    parts.append(f'<path class="axis" d="M{_LEFT} {floor}H{right}"/>')
    return "".join((*parts, "</svg>"))


def _bars(kinds: Sequence[str], shares: Mapping[str, Sequence[float]], right: float, floor: float, y_at) -> list[str]:
    slot = (right - _LEFT) / len(kinds)
    width = min(slot * 0.76 / len(shares), 26)
    parts = []
    for k, (values, style) in enumerate(zip(shares.values(), ("own", "rest"), strict=False)):
        for i, value in enumerate(values):
            x = _LEFT + (i + 0.5) * slot + (k - len(shares) / 2) * width
            y = y_at(value)
            parts.append(
                f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{floor - y:.1f}"/>'
            )
    for i, kind in enumerate(kinds):
        parts.append(text_svg(kind, f'x="{_LEFT + (i + 0.5) * slot:.1f}" y="{floor + 18}"', "middle"))
    return parts


def _steps(
    edges: Sequence[float], shares: Mapping[str, Sequence[float]], right: float, floor: float, y_at
) -> list[str]:
    low, high = edges[0], edges[-1]

    def x_at(x: float) -> float:
        return _LEFT + (x - low) / ((high - low) or 1) * (right - _LEFT)

    parts = []
    # The outline comes last, on top of the area.
    for style, values in reversed(list(zip(("own", "rest"), shares.values(), strict=False))):
        path = f"M{x_at(low):.1f} {floor}"
        for i, value in enumerate(values):
            path += f"V{y_at(value):.1f}H{x_at(edges[i + 1]):.1f}"
        parts.append(f'<path class="step {style}" d="{path}V{floor}"/>')
    for x in ticks(low, high, 5):
        if low <= x <= high:
            parts.append(f'<path class="axis" d="M{x_at(x):.1f} {floor}v4"/>')
            parts.append(text_svg(f"{x:,.9g}", f'x="{x_at(x):.1f}" y="{floor + 18}"', "middle"))
    return parts
