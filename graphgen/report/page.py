"""From an evaluation to a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from graphgen.metrics.distribution import UNITS, Histogram
from graphgen.metrics.measure import number
from graphgen.molecules.trajectory import Trajectory
from graphgen.report.curve import Series, curve_svg
from graphgen.report.drawing import molecule_svg
from graphgen.report.evaluation import COLUMNS, MEASURE_COLUMNS, REPAIR_COLUMNS, Evaluation, Sample
from graphgen.report.histogram import histogram_svg
from graphgen.report.strip import strip_svgs


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


class _Chart(NamedTuple):
    name: str
    unit: str
    svg: Markup
    distances: str
    meaning: str


class _Strip(NamedTuple):
    frames: list[tuple[str, Markup]]
    end: str


def render(
    evaluation: Evaluation,
    curve: Series,
    axes: tuple[str, str] = ("step", "loss"),
    trajectories: Sequence[Trajectory] = (),
) -> str:
    """The page as text.

    Args:
        evaluation: what to show.
        curve: training curves by name, each (step, value) pairs; may be empty.
        axes: what the two numbers of a curve are, with their units.
        trajectories: molecules on their way from noise.
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
        repair_columns=REPAIR_COLUMNS,
        charts=[_chart(histogram, evaluation) for histogram in evaluation.histograms],
        strips=[_strip(trajectory) for trajectory in trajectories],
        cards=list(_cards(evaluation)),
        figures=[_figure(sample) for sample in evaluation.samples],
        failures=evaluation.rows[0].summary["failures"],
        curve=None if drawn is None else Markup(drawn),
    )


def _chart(histogram: Histogram, evaluation: Evaluation) -> _Chart:
    sizes = " and ".join(f"{n:,} {name.replace(' ', '-')}" for name, n in histogram.n.items())
    meaning = f"{histogram.definition[0].upper()}{histogram.definition[1:]}. {sizes} molecules"
    if histogram.n_reference is not None:
        meaning += f", the nearest of {histogram.n_reference:,}"
    measures = {measure.name: measure for measure in evaluation.measures}
    found = [(what, measures.get(f"{what} {histogram.name}")) for what in ("W1", "KL")]
    distances = " · ".join(
        f"{what} {measure.text()}" + ("" if measure.floor is None else f" (floor {number(measure.floor)})")
        for what, measure in found
        if measure is not None
    )
    return _Chart(histogram.name, UNITS.get(histogram.name, ""), Markup(histogram_svg(histogram)), distances, meaning)


def _strip(trajectory: Trajectory) -> _Strip:
    times = [f"t = {time:.2g}" for time in trajectory.times]
    drawn = [Markup(svg) for svg in strip_svgs(trajectory)]
    labels = [trajectory.names[a] for a in trajectory.atoms[-1].argmax(1).tolist()]
    counts = Counter(labels)
    return _Strip(list(zip(times, drawn, strict=True)), " ".join(f"{name} {n}" for name, n in sorted(counts.items())))


def _cards(evaluation: Evaluation) -> Iterator[_Card]:
    rows = evaluation.rows
    n = f"{rows[0].summary['n']:,}"
    yield _share("V_strict", f"of {n} attempts are valid", [(row.name, row.summary["V_strict"]) for row in rows])
    if len(rows) == 1:
        meaning = f"of {n} attempts are valid and distinct"
        yield _share("V·U", meaning, [(row.name, row.summary["VU"]) for row in rows])
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
    measures = {measure.name: measure for measure in evaluation.measures if measure.value is not None}
    # The one distance that sees most of a molecule; where bonds are given, most of it is the skeletons'.
    if len(rows) == 1 and (distance := measures.get("FCD") or measures.get("NSPDK-MMD")) is not None:
        meaning = f"floor {number(distance.floor)}; {distance.n:,} valid molecules beside {distance.n_reference:,}"
        yield _Card(distance.name, distance.text(), "", f"{meaning}, less is better", [])


def _share(name: str, meaning: str, values: Sequence[tuple[str, float]]) -> _Card:
    bars = [_Bar(row, f"{100 * value:.2f}", 100 * value) for row, value in values]
    return _Card(name, bars[0].text, "%", meaning, bars)


def _figure(sample: Sample) -> _Figure:
    svg = molecule_svg(sample.smiles, sample.valid) if sample.smiles else None
    return _Figure(None if svg is None else Markup(svg), sample, (sample.reason or "").split(":")[0])
