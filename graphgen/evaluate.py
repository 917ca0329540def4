"""Generated molecules beside the rules that learn nothing, in one table with one set of definitions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rdkit import Chem, rdBase
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.generated import Generated
from graphgen.metrics import controls, distribution, fcd, literature, patterns
from graphgen.metrics.counts import summary
from graphgen.metrics.describe import Description, cache_key, describe, described_once
from graphgen.metrics.floors import ideal_uniqueness
from graphgen.metrics.labels import kl_atom_types, label_recovery, nats_per_atom
from graphgen.metrics.measure import Measure
from graphgen.metrics.skeletons import Skeletons, misfit
from graphgen.metrics.strict import Verdict, classify, failed
from graphgen.molecules.codec import canonical_smiles
from graphgen.molecules.datasets import cache_folder
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.records import is_table
from graphgen.ops import segment_reduce
from graphgen.progress import watched
from graphgen.report.evaluation import DEFINITIONS, Evaluation, Row, Sample

__all__ = ["Evaluation", "evaluate"]

_SAMPLES = 24
_REFERENCE = 10_000
Watch = Callable[[Iterable[Any], int, str], Iterable[Any]]


class _Judged(NamedTuple):
    row: Row
    samples: list[Sample]
    verdicts: list[Verdict]
    gdss: list[bool]


def evaluate(
    generated: Generated | str | os.PathLike[str] | Sequence[str],
    train: EncodedMolecules | Iterable[str],
    skeletons: EncodedMolecules | None = None,
    nats: tuple[float, float] | None = None,
    title: str = "Evaluation",
    settings: Mapping[str, object] | None = None,
    seed: int = 0,
    progress: bool = True,
    reference: EncodedMolecules | Iterable[str] | None = None,
    with_fcd: bool = False,
) -> Evaluation:
    """Judge generated molecules; where their skeletons are known, judge the controls on the same skeletons.

    Args:
        generated: the object, a file it was saved to, or SMILES. With atom labels and ``skeletons``, the
            graphs themselves are judged, as they are for the controls; else the SMILES are. An attempt
            without SMILES is never V_strict.
        train: the training split, or SMILES of it in any form; only the former gives all controls.
        skeletons: what ``generated.structures`` counts rows of.
        nats: mean and standard error of the model's -log p per held-out atom, if it has a likelihood.
        title: heading of the table and the report.
        settings: what else a reader must know to repeat this; shown as given.
        seed: of the controls.
        progress: show a bar on stderr where there is much to do.
        reference: held-out molecules to compare the distribution of the V_strict ones with; at most 10,000 of
            them, evenly spaced, are used. None: no distribution metrics.
        with_fcd: also the Fréchet ChemNet distance, which takes longer than all else together.

    Raises:
        GraphgenError: no attempts, a damaged file, or skeletons that do not fit the generated rows.
    """
    notes = []
    if isinstance(generated, (str, os.PathLike)):
        if not is_table(generated):
            notes.append("a list of SMILES holds no failed attempts: n counts its lines; the CSV has them")
        generated = Generated.load(generated)
    elif not isinstance(generated, Generated):
        generated = Generated(list(generated), [None] * len(generated))
    if not len(generated):
        raise GraphgenError("nothing to evaluate: there are no generated rows; generate some first")
    definitions, settings, floors = dict(DEFINITIONS), dict(settings or {}), {}
    watch = partial(watched, visible=progress)
    if not isinstance(train, EncodedMolecules):
        train = list(train)
    known = _train_smiles(train, watch, notes)
    if skeletons is not None and generated.structures is not None:
        encoded = train if isinstance(train, EncodedMolecules) else None
        given = Skeletons.of(generated.structures, skeletons, encoded.vocabulary.atoms if encoded else ())
        rules = controls.fit(encoded, given.vocabulary) if encoded else [controls.TrueLabels()]
        judged = _judge_given(generated, given, known, nats, watch)
        rows = [judged.row]
        rows += [_judge_control(rule, given, known, seed, watch) for rule in rules]
        definitions |= {rule.name: rule.definition for rule in rules}
        settings["controls seed"] = seed
        notes.append(
            f"bonds and bond orders are given: {len(generated)} attempts on "
            f"{given.distinct.graph.num_graphs} distinct skeletons. Validity then says only whether "
            "labels respect local valence; read it beside the controls"
        )
        if encoded is None:
            notes.append("the training split came as SMILES: no frequencies for the other controls")
    else:
        judged = _judge_smiles(generated, known, nats, watch)
        rows = [judged.row]
        if skeletons is not None:
            notes.append("the generated rows do not name their skeletons, so there are no controls")
        if known:
            floors["ideal_uniqueness"] = ideal_uniqueness(len(known), len(generated))
            notes.append(
                f"a perfect sampler of the {len(known)} distinct training molecules would reach "
                f"V·U {100 * floors['ideal_uniqueness']:.2f} % at this n, and V·U·N 0"
            )
    readings = literature.read(generated.smiles, [v.smiles for v in judged.verdicts])
    measures = [*literature.moses(readings, known), *literature.dig(readings, known), literature.gdss(judged.gdss)]
    histograms: list[distribution.Histogram] = []
    if reference is not None:
        valid = [v.smiles for v in judged.verdicts if v.strict and v.smiles is not None]
        held_out = _spaced(reference if isinstance(reference, EncodedMolecules) else list(reference), _REFERENCE)
        in_place = _spaced(train, min(max(len(valid), 1), _REFERENCE))
        found, histograms = _compared(valid, held_out, in_place, watch)
        measures = [*found, *measures]
        if with_fcd:
            measures = [*_chemnet(valid, held_out, in_place), *measures]
        notes.append(
            f"the distribution is that of the {len(valid)} V_strict molecules, duplicates kept, beside "
            f"{len(held_out)} held-out ones; the floor puts {len(in_place)} training molecules in their place"
        )
        if skeletons is not None and generated.structures is not None:
            notes.append("with bonds given, size, rings, bonds and scaffold shapes are those of the skeletons")
    return Evaluation(title, rows, definitions, settings, notes, judged.samples, floors, measures, histograms)


def _spaced(source: EncodedMolecules | list[str], count: int) -> list[str]:
    """At most ``count`` canonical SMILES at equal distances; what cannot be read is left out."""
    total = len(source)
    rows = range(total) if total <= count else [i * total // count for i in range(count)]
    if isinstance(source, EncodedMolecules):
        return [source.smiles(i) for i in rows]
    found = (_canonical_or_none(source[i].strip()) for i in rows)
    return [smiles for smiles in found if smiles is not None]


def _compared(
    valid: list[str], held_out: list[str], in_place: list[str], watch: Watch
) -> tuple[list[Measure], list[distribution.Histogram]]:
    if not held_out:
        raise GraphgenError("no reference molecule can be read; give another split or file")
    filters = patterns.missing() is None
    folder = cache_folder()
    ours = describe(valid, filters, watch, "distribution")
    theirs = described_once(held_out, False, folder, watch, "held out")
    real = described_once(in_place, filters, folder, watch, "floor")
    if not len(real):
        return distribution.compare(ours, theirs)
    path = folder / f"floor-{cache_key(in_place, held_out, filters)}.json"
    return distribution.compare(ours, theirs, real, _floor_once(real, theirs, path))


def _floor_once(train: Description, reference: Description, path: Path) -> distribution.Floor:
    with suppress(OSError, ValueError, TypeError):
        return distribution.Floor(**json.loads(path.read_text()))
    found = distribution.floor_of(train, reference)
    with suppress(OSError), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(vars(found)))
    return found


def _chemnet(valid: list[str], held_out: list[str], in_place: list[str]) -> list[Measure]:
    n, n_reference, why = len(valid), len(held_out), fcd.missing()
    if why is None and min(n, n_reference, len(in_place)) < 2:
        why = "needs two molecules or more on each side"
    distance = floor = None
    if why is None:
        ours, theirs, real = (fcd.chemnet(smiles) for smiles in (valid, held_out, in_place))
        distance, floor = fcd.frechet(ours, theirs), fcd.frechet(real, theirs)
    scores = [None if d is None else fcd.guacamol_score(d) for d in (distance, floor)]
    return [
        Measure("FCD", distance, n, f"{fcd.DEFINITION} ({fcd.library()})", n_reference, floor, why),
        Measure("GuacaMol FCD score", scores[0], n, fcd.SCORE_DEFINITION, n_reference, scores[1], why),
    ]


def _judge_smiles(generated: Generated, known: set[str], nats: tuple[float, float] | None, watch: Watch) -> _Judged:
    pairs = zip(generated.smiles, generated.reasons, strict=True)
    verdicts = [
        classify(text) if text else failed(reason or "no molecule")
        for text, reason in watch(pairs, len(generated), "generated")
    ]
    samples = [
        Sample(v.smiles if v.strict else text, v.strict, v.smiles not in known, v.reason)
        for v, text in zip(verdicts[:_SAMPLES], generated.smiles, strict=False)
    ]
    row = Row("generated", summary(verdicts, known), nats=nats)
    gdss = [_gdss_valid(v, text) for v, text in zip(verdicts, generated.smiles, strict=True)]
    return _Judged(row, samples, verdicts, gdss)


def _judge_given(
    generated: Generated, given: Skeletons, known: set[str], nats: tuple[float, float] | None, watch: Watch
) -> _Judged:
    labels = given.labels(generated)
    if labels is None:
        return _judge_smiles(generated, known, nats, watch)
    verdicts: list[Verdict] = []
    samples: list[Sample] = []
    gdss: list[bool] = []
    truth, ends = given.batch.atoms, given.batch.graph.ptr.tolist()
    for i, mol in enumerate(watch(given.molecules(labels), len(generated), "generated")):
        verdict = _verdict(i, generated, mol)
        verdicts.append(verdict)
        gdss.append(_gdss_valid(verdict, mol))
        if i < _SAMPLES:
            changed = int((labels != truth)[ends[i] : ends[i + 1]].sum())
            drawn = verdict.smiles if verdict.strict else _as_drawn(mol)
            novel = verdict.smiles not in known
            size = ends[i + 1] - ends[i]
            samples.append(Sample(drawn, verdict.strict, novel, verdict.reason, changed, size))
    row = _labelled_row("generated", verdicts, labels, given, known, nats)
    return _Judged(row, samples, verdicts, gdss)


def _gdss_valid(verdict: Verdict, molecule: Chem.Mol | str | None) -> bool:
    if verdict.strict and verdict.smiles is not None and not any(sign in verdict.smiles for sign in "+-"):
        # There is no charge to drop, so what it asks is part of V_strict.
        return True
    return literature.gdss_valid(molecule)


def _verdict(row: int, generated: Generated, mol: Chem.Mol) -> Verdict:
    verdict = classify(mol)
    text = generated.smiles[row]
    if not text and verdict.strict:
        # The generator gave this attempt up (a solver that diverged, say); labels that happen to fit do not
        # undo it.
        return failed(generated.reasons[row] or "no molecule")
    # The one sign that a file is read beside the wrong skeletons when their sizes happen to agree.
    if text and text != verdict.smiles and classify(text).smiles != verdict.smiles:
        here = verdict.smiles or "no molecule"
        raise misfit(row, generated, f"reads {text}, and its labels on that skeleton give {here}")
    return verdict


def _judge_control(rule: controls.Control, given: Skeletons, known: set[str], seed: int, watch: Watch) -> Row:
    labels = rule.sample(given.batch, seed)
    mols = watch(given.molecules(labels), given.batch.graph.num_graphs, rule.name)
    verdicts = [classify(mol) for mol in mols]
    nats = None
    if isinstance(rule, controls.FrequencyTable):
        p = rule.predict_proba(given.distinct).gather(1, given.distinct.atoms[:, None]).squeeze(1)
        per_molecule = segment_reduce(p.log().unsqueeze(1), given.distinct.graph.ptr).squeeze(1)
        nats = nats_per_atom(per_molecule, given.distinct.graph.ptr.diff())
    return _labelled_row(rule.name, verdicts, labels, given, known, nats)


def _labelled_row(
    name: str,
    verdicts: Sequence[Verdict],
    labels: Tensor,
    given: Skeletons,
    known: set[str],
    nats: tuple[float, float] | None,
) -> Row:
    truth = given.batch.atoms
    kl = kl_atom_types(truth, labels, len(given.vocabulary))
    return Row(name, summary(verdicts, known), label_recovery(labels, truth), kl, nats)


def _as_drawn(mol: Chem.Mol) -> str:
    with rdBase.BlockLogs():
        mol.UpdatePropertyCache(strict=False)
        return str(Chem.MolToSmiles(mol))


def _train_smiles(train: EncodedMolecules | Iterable[str], watch: Watch, notes: list[str]) -> set[str]:
    if isinstance(train, EncodedMolecules):
        return {train.smiles(i) for i in range(len(train))}
    texts = list(train)
    found = [_canonical_or_none(text.strip()) for text in watch(texts, len(texts), "training split")]
    if unreadable := found.count(None):
        notes.append(f"{unreadable} training SMILES cannot be read and are not part of the novelty check")
    return {smiles for smiles in found if smiles is not None}


def _canonical_or_none(text: str) -> str | None:
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text, sanitize=False) if text else None
        try:
            return None if mol is None else canonical_smiles(mol)
        except ValueError:
            return None
