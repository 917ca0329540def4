"""The metrics of MOSES under its own names and in its own order, as the rows of its tables."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence

from rdkit import Chem, rdBase

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.generated import Generated
from graphgen.metrics import distribution, fcd, literature, patterns
from graphgen.metrics.describe import PROPERTIES, describe
from graphgen.metrics.distances import wasserstein
from graphgen.molecules.codec import canonical_smiles

NAMES = (
    "valid", "unique@1000", "unique@10000", "FCD/Test", "SNN/Test", "Frag/Test", "Scaf/Test", "FCD/TestSF",
    "SNN/TestSF", "Frag/TestSF", "Scaf/TestSF", "IntDiv", "IntDiv2", "Filters", "logP", "SA", "QED", "weight",
    "Novelty",
)  # fmt: skip
Metrics = dict[str, float | None]


def metrics(
    generated: Generated | Sequence[str | None],
    test: Sequence[str],
    test_scaffolds: Sequence[str] | None = None,
    train: Iterable[str] | None = None,
    with_fcd: bool = False,
) -> Metrics:
    """What ``moses.get_all_metrics`` computes, with our implementations; None where something is missing for it.

    The definitions are those of :mod:`graphgen.metrics.distribution` and :mod:`graphgen.metrics.literature`, which
    are checked against the values that the MOSES authors published.

    Args:
        generated: attempts; None or "" is one that gave no molecule.
        test, test_scaffolds, train: SMILES of MOSES's splits, or of any others.
        with_fcd: also the Fréchet ChemNet distances, which take longer than all else together.

    Raises:
        GraphgenError: none of the attempts is valid, or ``test`` holds no molecule.
    """
    attempts = list(generated.smiles if isinstance(generated, Generated) else generated)
    if not attempts:
        raise GraphgenError("there are no molecules to compute MOSES's metrics of")
    readings = literature.read(attempts)
    if not readings.names or not len(test):
        raise GraphgenError("MOSES's metrics need a valid molecule and a test set")
    known = None if train is None else _plain(train)
    counts = {m.name.removeprefix("MOSES "): m.value for m in literature.moses(readings, known or ())}
    made = describe(readings.names, filters=patterns.missing() is None)
    real = describe(test)
    one, two = distribution.internal_diversity(made)
    found: Metrics = {**counts, "IntDiv": one.value, "IntDiv2": two.value, "Filters": distribution.filters(made).value}
    found["Novelty"] = counts.get("novelty")
    for name, smiles, reference in (
        ("Test", test, real),
        ("TestSF", test_scaffolds, None if test_scaffolds is None else describe(test_scaffolds)),
    ):
        if reference is None:
            continue
        for metric in (distribution.snn, distribution.frag, distribution.scaf):
            measure = metric(made, reference)
            found[f"{measure.name}/{name}"] = measure.value
        if with_fcd:
            found[f"FCD/{name}"] = fcd.frechet(fcd.chemnet(readings.names), fcd.chemnet(list(smiles or ())))
    for i, name in enumerate(PROPERTIES):
        distance = wasserstein(made.properties[:, i], real.properties[:, i])
        found[name] = None if distance != distance else distance
    return {name: found.get(name) for name in NAMES}


def _plain(smiles: Iterable[str]) -> set[str]:
    with rdBase.BlockLogs():
        mols = (Chem.MolFromSmiles(text) for text in smiles)
        return {canonical_smiles(mol) for mol in mols if mol is not None}


def save(path: str | os.PathLike[str], found: Metrics) -> None:
    """Write one model's metrics as MOSES's ``eval.py`` does: a line ``name,value`` each, without a header."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows((name, _text(value)) for name, value in found.items())


def table(models: Mapping[str, Metrics]) -> list[list[str]]:
    """Rows of a table, header first: a row for each model, a column for each metric, to paste or to write as CSV."""
    header = ["Model", *NAMES]
    return [header, *([model, *(_text(found.get(name)) for name in NAMES)] for model, found in models.items())]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
