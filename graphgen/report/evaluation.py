"""What an evaluation found: the rows of one table and the definitions they rest on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from graphgen.files import atomic_write
from graphgen.metrics.counts import Summary
from graphgen.metrics.distribution import Histogram
from graphgen.metrics.measure import Measure, number
from graphgen.metrics.repair import AfterRepair
from graphgen.molecules.trajectory import Trajectory

_DASH = "\N{EN DASH}"

DEFINITIONS: Mapping[str, str] = {
    "n": "attempts; the denominator of every share below, failed attempts included",
    "V_strict": "RDKit sanitises it as drawn (no clean-up of charges, no repair), one fragment, no radicals "
    "or dummy atoms, its SMILES reads back to the same molecule",
    "V_full": "RDKit's SanitizeMol accepts it, with its clean-up of charges; fragments and radicals pass",
    "V_valence": "every atom as drawn has a valence that RDKit permits; nothing else is asked",
    "V·U": "distinct V_strict molecules / n; equal are those of equal canonical SMILES without stereo",
    "V·U·N": "distinct V_strict molecules that are not in the training split / n",
    "label recovery": "share of atoms whose sampled label is the true one of their place in the skeleton, "
    "over all attempts; always saying the most frequent label scores high here, and low in V·U",
    "top-1, top-3 %": "share of held-out atoms whose true label is the likeliest, or among the three likeliest, of "
    "their place given the bonds alone; from probabilities, not from samples",
    "KL atom types": "divergence of the generated atom-type shares from the true ones, in nats, one count "
    "added to each type on both sides; 0 is best",
    "nats/atom": "mean of -log p(true label) per held-out atom ± standard error over molecules; less is "
    "better. Of a model of whole molecules: -log p of all labels and bonds in their order of atoms, over the number of "
    "atoms. Controls: over the distinct skeletons, one count added to each atom type so that it is finite",
    _DASH: "not defined for this row, or not known from this file",
}

# Each column as a page has it and as a terminal of 80 columns has it.
_COLUMNS = (
    ("row", ""),
    ("n", "n"),
    ("V_strict %", "V\nstrict\n%"),
    ("V_full %", "V\nfull\n%"),
    ("V_valence %", "V\nval-\nence\n%"),
    ("V·U %", "V·U\n%"),
    ("V·U·N %", "V·U·N\n%"),
    ("label recovery %", "label\nreco-\nvery\n%"),
    ("top-1, top-3 %", "top\n1, 3\n%"),
    ("KL atom types", "KL\natom\ntypes"),
    ("nats/atom", "nats/atom\n± s.e."),
)
COLUMNS = tuple(name for name, _ in _COLUMNS)
MEASURE_COLUMNS = ("measure", "generated", "floor", "processed", "n", "n reference")
REPAIR_COLUMNS = ("of all attempts", "as drawn", "after repair")


@dataclass(frozen=True)
class Row:
    """One line of the table. Shares are fractions of the n attempts; None is what the row does not define."""

    name: str
    summary: Summary
    label_recovery: float | None = None
    kl_atom_types: float | None = None
    nats: tuple[float, float] | None = None
    top: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The row in types that JSON has."""
        mean, error = self.nats or (None, None)
        top1, top3 = self.top or (None, None)
        return {
            "name": self.name,
            **self.summary,
            "label_recovery": self.label_recovery,
            "top1": top1,
            "top3": top3,
            "kl_atom_types": self.kl_atom_types,
            "nats_per_atom": mean,
            "nats_per_atom_stderr": error if error is not None and math.isfinite(error) else None,
        }

    def cells(self) -> list[str]:
        """The row as text, in the order of :data:`COLUMNS`."""
        s = self.summary
        shares: list[tuple[float | None, int]] = [
            (s["V_strict"], 2),
            (s["V_full"], 1),
            (s["V_valence"], 1),
            (s["VU"], 2),
            (s["VUN"], 2),
        ]
        shares.append((self.label_recovery, 1))
        return [
            self.name,
            f"{s['n']}",
            *(_DASH if share is None else f"{100 * share:.{digits}f}" for share, digits in shares),
            _DASH if self.top is None else "\n".join(f"{100 * share:.1f}" for share in self.top),
            _DASH if self.kl_atom_types is None else f"{self.kl_atom_types:.3f}",
            _DASH if self.nats is None else f"{self.nats[0]:.3f}±{self.nats[1]:.3f}",
        ]


@dataclass(frozen=True)
class Sample:
    """One of the first attempts, for the eye.

    Attributes:
        smiles: canonical where valid, as it came where not, None where there is nothing to draw.
        valid: V_strict.
        novel: not in the training split.
        reason: why it is not valid, else None.
        changed: how many of its ``num_atoms`` labels differ from the skeleton's own; None where unknown.
    """

    smiles: str | None
    valid: bool
    novel: bool
    reason: str | None
    changed: int | None = None
    num_atoms: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`graphgen.evaluate.evaluate`: a row for what was generated, then the controls."""

    title: str
    rows: Sequence[Row]
    definitions: Mapping[str, str]
    settings: Mapping[str, object]
    notes: Sequence[str] = ()
    samples: Sequence[Sample] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    measures: Sequence[Measure] = ()
    histograms: Sequence[Histogram] = ()
    after_repair: AfterRepair | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the samples, in types that JSON has (settings that are not become text)."""
        return {
            "title": self.title,
            "rows": [row.to_json() for row in self.rows],
            "after_repair": self.after_repair,
            "definitions": dict(self.definitions),
            "floors": dict(self.floors),
            "measures": [measure.to_json() for measure in self.measures],
            "histograms": [histogram.to_json() for histogram in self.histograms],
            "notes": list(self.notes),
            "settings": json.loads(json.dumps(dict(self.settings), default=str)),
        }

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """The rows as a table for a terminal of 80 columns or more."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        for i, (_, head) in enumerate(_COLUMNS):
            # Folded rather than cut: a number that lost its end reads as another number.
            table.add_column(head, justify="right" if i else "left", vertical="bottom", overflow="fold")
        for i, row in enumerate(self.rows):
            table.add_row(*row.cells(), style="bold" if i == 0 else "")
        return table

    def measure_cells(self) -> list[list[str]]:
        """The measures as text, in the order of :data:`MEASURE_COLUMNS`."""
        return [
            [
                m.name,
                *map(number, (m.value, m.floor, m.processed)),
                f"{m.n}",
                _DASH if m.n_reference is None else f"{m.n_reference}",
            ]
            for m in self.measures
        ]

    def repair_cells(self) -> list[list[str]]:
        """What repair made of the attempts, as text, in the order of :data:`REPAIR_COLUMNS`; empty without repair."""
        own, mended = self.rows[0].summary, self.after_repair
        if mended is None:
            return []
        pairs = [
            ("V_strict %", own["V_strict"], mended["V_strict"]),
            ("V·U %", own["VU"], mended["VU"]),
            ("V·U·N %", own["VUN"], mended["VUN"]),
            ("attempts changed %", 0.0, mended["changed"]),
            ("atoms lost %", 0.0, mended["atoms_lost"]),
        ]
        return [[name, *(f"{100 * share:.2f}" for share in shares)] for name, *shares in pairs]

    def measure_definitions(self) -> dict[str, str]:
        """What the measures mean, those of one definition together, and why any has no value."""
        names: dict[str, list[str]] = {}
        for measure in self.measures:
            names.setdefault(measure.definition, []).append(measure.name)
        found = {", ".join(group): definition for definition, group in names.items()}
        found |= {f"no {m.name}": m.missing for m in self.measures if m.missing is not None}
        if any(m.floor is not None for m in self.measures):
            found["floor"] = "the measure of training molecules in the place of the generated ones"
        if any(m.processed is not None for m in self.measures):
            found["processed"] = (
                "the measure of the held-out molecules as they are encoded, stereo dropped, in the place of the "
                "generated ones, with these molecules as their source has them for a reference"
            )
        return found

    def measure_table(self) -> Table:
        """The measures as a table for a terminal."""
        return _plain_table(MEASURE_COLUMNS, self.measure_cells())

    def legend(self) -> Table:
        """The definitions and notes, to stand below the table."""
        legend = Table.grid(padding=(0, 2, 0, 0))
        legend.add_column(no_wrap=True, style="bold")
        legend.add_column(overflow="fold")
        for term, meaning in self.definitions.items():
            legend.add_row(term, meaning)
        for note in self.notes:
            legend.add_row("note", note)
        return legend

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table()
        if repaired := self.repair_cells():
            yield ""
            yield _plain_table(REPAIR_COLUMNS, repaired)
        yield self.legend()
        if self.measures:
            yield ""
            yield self.measure_table()
            for term, meaning in self.measure_definitions().items():
                yield Text.assemble((term, "bold"), f": {meaning}")

    def html(
        self,
        path: str | os.PathLike[str],
        curve: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        axes: tuple[str, str] = ("step", "loss"),
        trajectories: Sequence[Trajectory] = (),
    ) -> None:
        """Write a report as one HTML file that needs nothing else.

        Args:
            path: where to.
            curve: training curves by name, each a list of (step, value).
            axes: what the two numbers of a curve are, with their units.
            trajectories: molecules on their way from noise, as ``graphgen.follow`` gives them.
        """
        from graphgen.report.page import render

        with atomic_write(path) as temporary:
            temporary.write_text(render(self, curve or {}, axes, trajectories), encoding="utf-8")


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(columns):
        table.add_column(head, justify="right" if i else "left", overflow="fold")
    for cells in rows:
        table.add_row(*cells)
    return table
