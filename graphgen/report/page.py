"""From an evaluation to a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from graphgen.metrics.distribution import Histogram
from graphgen.report.curve import Series, curve_svg
from graphgen.report.drawing import molecule_svg
from graphgen.report.evaluation import COLUMNS, MEASURE_COLUMNS, Evaluation, Row, Sample


class _Bar(NamedTuple):
    name: str
    text: str
    width: float


class _Card(NamedTuple):
    name: str
    text: str
    unit: str
    meaning: str
    bars: list[_Bar]


class _Figure(NamedTuple):
    svg: Markup | None
    sample: Sample
    fault: str


def render(evaluation: Evaluation, curve: Series, axes: tuple[str, str] = ("step", "loss")) -> str:
    """The page as text.

    Args:
        evaluation: what to show.
        curve: training curves by name, each (step, value) pairs; may be empty.
        axes: what the two numbers of a curve are, with their units.
    """
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
    drawn = curve_svg(curve, *axes)
    return template.render(
        evaluation=evaluation,
        n=evaluation.rows[0].summary["n"],
        columns=COLUMNS,
        measure_columns=MEASURE_COLUMNS,
        histograms=[_histogram(histogram) for histogram in evaluation.histograms],
        cards=list(_cards(evaluation.rows)),
        figures=[_figure(sample) for sample in evaluation.samples],
        failures=evaluation.rows[0].summary["failures"],
        curve=None if drawn is None else Markup(drawn),
    )


def _histogram(histogram: Histogram) -> tuple[Markup, str]:
    label = f"similarity to the {histogram.name}"
    svg = curve_svg(histogram.series(), label, "% of molecules")
    sizes = ", ".join(f"{n:,} {name}" for name, n in histogram.n.items())
    return Markup(svg or ""), f"{histogram.definition}. {sizes}; looked for in {histogram.n_reference:,}."


def _cards(rows: Sequence[Row]) -> Iterator[_Card]:
    n = f"{rows[0].summary['n']:,}"
    yield _share("V_strict", f"of {n} attempts are valid", [(row.name, row.summary["V_strict"]) for row in rows])
    meaning = f"of {n} attempts are valid, distinct and new"
    yield _share("V·U·N", meaning, [(row.name, row.summary["VUN"]) for row in rows])
    recovery = [(row.name, row.label_recovery) for row in rows if row.label_recovery is not None]
    if rows[0].label_recovery is not None:
        yield _share("label recovery", "of all atoms carry their true label", recovery)
    nats = [(row.name, row.nats[0]) for row in rows if row.nats is not None]
    if rows[0].nats is not None:
        most = max(1e-9, *(value for _, value in nats))
        bars = [_Bar(name, f"{value:.3f}", 100 * max(value, 0) / most) for name, value in nats]
        meaning = f"± {rows[0].nats[1]:.3f}, mean -log p of a true label; less is better"
        yield _Card("nats/atom", bars[0].text, "", meaning, bars)


def _share(name: str, meaning: str, values: Sequence[tuple[str, float]]) -> _Card:
    bars = [_Bar(row, f"{100 * value:.1f}", 100 * value) for row, value in values]
    return _Card(name, bars[0].text, "%", meaning, bars)


def _figure(sample: Sample) -> _Figure:
    svg = molecule_svg(sample.smiles, sample.valid) if sample.smiles else None
    return _Figure(None if svg is None else Markup(svg), sample, (sample.reason or "").split(":")[0])
