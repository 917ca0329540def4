"""Generated molecules beside the rules that learn nothing, in one table with one set of definitions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rdkit import Chem, rdBase
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.generated import Generated
from graphgen.metrics import controls, describe, distribution, fcd, judge, literature, patterns, repair
from graphgen.metrics.counts import summary
from graphgen.metrics.describe import Description
from graphgen.metrics.floors import ideal_uniqueness
from graphgen.metrics.judge import Judgement
from graphgen.metrics.labels import kl_atom_types, label_recovery, nats_per_atom, top_recovery
from graphgen.metrics.measure import Measure
from graphgen.metrics.skeletons import Skeletons, misfit
from graphgen.metrics.strict import Verdict, classify, failed
from graphgen.molecules.codec import canonical_smiles, decode
from graphgen.molecules.datasets import cache_folder
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.records import is_table
from graphgen.molecules.workers import answers
from graphgen.ops import segment_reduce
from graphgen.progress import watched
from graphgen.report.evaluation import DEFINITIONS, Evaluation, Row, Sample

__all__ = ["Evaluation", "evaluate"]

_SAMPLES = 24
_REFERENCE = 10_000
Watch = Callable[[Iterable[Any], int, str], Iterable[Any]]


class _Set(NamedTuple):
    """Real molecules whose description is kept: their SMILES, whether filters are asked of them, and where."""

    smiles: list[str]
    filters: bool
    path: Path


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
    raw: Sequence[str] | None = None,
    top: tuple[float, float] | None = None,
    with_controls: bool = True,
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
        raw: SMILES of ``reference``, one for each, as its source has them, stereo and all
            (``metrics.floors.as_in_source``); gives the floor of what was processed beside what was not.
        top: the model's top-1 and top-3 recovery, as ``graphgen.likelihood.held_out_top`` gives them.
        with_controls: judge the rules that learn nothing too, where skeletons are known.

    Raises:
        GraphgenError: no attempts, a damaged file, or skeletons that do not fit the generated rows.
        ValueError: ``raw`` is not as long as ``reference``.
    """
    notes: list[str] = []
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
    n = len(generated)

    given, labels = None, None
    rules: list[controls.Control] = []
    controlled: list[Tensor] = []
    if skeletons is not None and generated.structures is not None:
        encoded = train if isinstance(train, EncodedMolecules) else None
        given = Skeletons.of(generated.structures, skeletons, encoded.vocabulary.atoms if encoded else ())
        labels = given.labels(generated)
        rules = controls.fit(encoded, given.vocabulary) if encoded else [controls.TrueLabels()]
        rules = rules if with_controls else []
        controlled = [rule.sample(given.batch, seed) for rule in rules]
        definitions |= {rule.name: rule.definition for rule in rules}
        settings["controls seed"] = seed
        notes.append(
            f"bonds and bond orders are given: {n} attempts on "
            f"{given.distinct.graph.num_graphs} distinct skeletons. Validity then says only whether "
            "labels respect local valence; read it beside the controls. Repair would lower bonds that were given, "
            "so there is none"
        )
        if encoded is None:
            notes.append("the training split came as SMILES: no frequencies for the other controls")
    else:
        if skeletons is not None:
            notes.append("the generated rows do not name their skeletons, so there are no controls")
        if known:
            floors["ideal_uniqueness"] = ideal_uniqueness(len(known), n)
            notes.append(
                f"a perfect sampler of the {len(known)} distinct training molecules would reach "
                f"V·U {100 * floors['ideal_uniqueness']:.2f} % at this n, and V·U·N 0"
            )

    filters = patterns.missing() is None
    sets = {} if reference is None else _real_sets(reference, raw, train, n, filters)
    described = {name: describe.kept(chosen.path) for name, chosen in sets.items()}
    asked = ("g" if given else "gr") + ("" if reference is None else "df" if filters else "d")
    if given is not None and labels is not None:
        own: Iterator[list[Any]] = (judge.item(list(graph), asked) for graph in given.graphs(labels))
    else:
        pairs = zip(generated.smiles, generated.reasons, strict=True)
        own = (judge.item(text, asked, reason) for text, reason in pairs)
    visits = list(own)
    for drawn in controlled:
        assert given is not None
        visits += [judge.item(list(graph)) for graph in given.graphs(drawn)]
    for name, chosen in sets.items():
        if described[name] is None:
            visits += [judge.item(text, "kf" if chosen.filters else "k") for text in chosen.smiles]
    if any("f" in visit[1] for visit in visits):
        patterns.load()

    with closing(answers(judge.TASK, visits, len(visits), describe.FEW)) as found:

        def of(count: int, name: str) -> Iterator[Judgement]:
            return map(judge.judgement, watch(islice(found, count), count, name))

        judged = list(of(n, "generated"))
        verdicts = [judgement.verdict for judgement in judged]
        if given is not None and labels is not None:
            verdicts = [_as_told(i, generated, verdict) for i, verdict in enumerate(verdicts)]
        rows = [_row("generated", verdicts, known, given, labels, nats, top)]
        for rule, drawn in zip(rules, controlled, strict=True):
            assert given is not None
            of_rule = [judgement.verdict for judgement in of(n, rule.name)]
            rows.append(_row(rule.name, of_rule, known, given, drawn, *_of_table(rule, given)))
        for name, chosen in sets.items():
            if described[name] is None:
                facts = (judgement.facts or "" for judgement in of(len(chosen.smiles), name))
                described[name] = collected = describe.collect(facts, chosen.filters)
                describe.keep(collected, chosen.path)

    mended = None
    if given is None:
        mended = repair.after_repair([j.repaired for j in judged if j.repaired is not None], known)
        definitions["after repair"] = repair.RULE
    readings = literature.read(generated.smiles, [v.smiles for v in verdicts])
    measures = [*literature.moses(readings, known), *literature.dig(readings, known)]
    measures.append(literature.gdss([judgement.gdss for judgement in judged]))
    histograms: list[distribution.Histogram] = []
    if reference is not None:
        strict = [(v.smiles, j.facts) for v, j in zip(verdicts, judged, strict=True) if v.strict and j.facts]
        ours = describe.collect((facts for _, facts in strict if facts), filters)
        compared, histograms = _compared(ours, sets, described)
        measures = [*compared, *measures]
        held_out, in_place = sets["held out"].smiles, sets["floor"].smiles
        if with_fcd:
            valid = [smiles for smiles, _ in strict if smiles is not None]
            source = sets["source"].smiles if "source" in sets else None
            measures = [*_chemnet(valid, held_out, in_place, source), *measures]
        notes.append(
            f"the distribution is that of the {len(ours)} V_strict molecules, duplicates kept, beside "
            f"{len(held_out)} held-out ones; the floor puts {len(in_place)} training molecules in their place"
        )
        if given is not None:
            notes.append("with bonds given, size, rings, bonds and scaffold shapes are those of the skeletons")
    samples = _samples(generated, verdicts, known, given, labels)
    return Evaluation(title, rows, definitions, settings, notes, samples, floors, measures, histograms, mended)


def _real_sets(
    reference: EncodedMolecules | Iterable[str],
    raw: Sequence[str] | None,
    train: EncodedMolecules | list[str],
    n: int,
    filters: bool,
) -> dict[str, _Set]:
    """The held-out molecules, the training molecules in the place of n attempts, and the source of the former."""
    if not isinstance(reference, EncodedMolecules):
        reference = list(reference)
    chosen = {
        "held out": (_spaced(reference, _REFERENCE), False),
        "floor": (_spaced(train, min(n, _REFERENCE)), filters),
    }
    if raw is not None:
        if len(raw) != len(reference):
            raise ValueError(f"raw: {len(raw)} SMILES for {len(reference)} reference molecules")
        chosen["source"] = ([raw[i] for i in _spaced_rows(len(raw), _REFERENCE)], False)
    if not chosen["held out"][0]:
        raise GraphgenError("no reference molecule can be read; give another split or file")
    folder = cache_folder()
    return {name: _Set(*given, describe.place(*given, folder)) for name, given in chosen.items()}


def _spaced_rows(total: int, count: int) -> Sequence[int]:
    return range(total) if total <= count else [i * total // count for i in range(count)]


def _spaced(source: EncodedMolecules | list[str], count: int) -> list[str]:
    """At most ``count`` canonical SMILES at equal distances; what cannot be read is left out."""
    rows = _spaced_rows(len(source), count)
    if isinstance(source, EncodedMolecules):
        return [source.smiles(i) for i in rows]
    found = (_canonical_or_none(source[i].strip()) for i in rows)
    return [smiles for smiles in found if smiles is not None]


def _compared(
    ours: Description, sets: Mapping[str, _Set], described: Mapping[str, Description | None]
) -> tuple[list[Measure], list[distribution.Histogram]]:
    theirs, real, source = (described.get(name) for name in ("held out", "floor", "source"))
    assert theirs is not None
    if real is None or not len(real):
        measures, histograms = distribution.compare(ours, theirs)
    else:
        key = describe.cache_key([list(chosen[:2]) for chosen in sets.values()])
        floor = _floor_once(real, theirs, source, cache_folder() / f"floor-{key}.json")
        measures, histograms = distribution.compare(ours, theirs, real, floor)
    return measures, [*(distribution.properties(ours, theirs) if len(ours) else []), *histograms]


def _floor_once(
    train: Description, reference: Description, source: Description | None, path: Path
) -> distribution.Floor:
    with suppress(OSError, ValueError, TypeError):
        return distribution.Floor(**json.loads(path.read_text()))
    found = distribution.floor_of(train, reference, source)
    with suppress(OSError), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(vars(found)))
    return found


def _chemnet(valid: list[str], held_out: list[str], in_place: list[str], source: list[str] | None) -> list[Measure]:
    n, n_reference, why = len(valid), len(held_out), fcd.missing()
    if why is None and min(n, n_reference, len(in_place)) < 2:
        why = "needs two molecules or more on each side"
    found: list[float | None] = [None, None, None]
    if why is None:
        theirs = fcd.chemnet(held_out)
        found[:2] = (fcd.frechet(fcd.chemnet(smiles), theirs) for smiles in (valid, in_place))
        if source is not None:
            found[2] = fcd.frechet(theirs, fcd.chemnet(source))
    distance, floor, processed = found
    scores = [None if d is None else fcd.guacamol_score(d) for d in found]
    what = f"{fcd.DEFINITION} ({fcd.library()})"
    return [
        Measure("FCD", distance, n, what, n_reference, floor, why, processed),
        Measure("GuacaMol FCD score", scores[0], n, fcd.SCORE_DEFINITION, n_reference, scores[1], why, scores[2]),
    ]


def _row(
    name: str,
    verdicts: Sequence[Verdict],
    known: set[str],
    given: Skeletons | None,
    labels: Tensor | None,
    nats: tuple[float, float] | None,
    top: tuple[float, float] | None,
) -> Row:
    if given is None or labels is None:
        return Row(name, summary(verdicts, known), nats=nats, top=top)
    truth = given.batch.atoms
    kl = kl_atom_types(truth, labels, len(given.vocabulary))
    return Row(name, summary(verdicts, known), label_recovery(labels, truth), kl, nats, top)


def _of_table(
    rule: controls.Control, given: Skeletons
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Nats per atom with their standard error, and top-1 and top-3 recovery, of a rule that has probabilities."""
    if not isinstance(rule, controls.FrequencyTable):
        return None, None
    probability, truth = rule.predict_proba(given.distinct), given.distinct.atoms
    p = probability.gather(1, truth[:, None]).squeeze(1)
    per_molecule = segment_reduce(p.log().unsqueeze(1), given.distinct.graph.ptr).squeeze(1)
    top = top_recovery(probability, truth, 1), top_recovery(probability, truth, 3)
    return nats_per_atom(per_molecule, given.distinct.graph.ptr.diff()), top


def _as_told(row: int, generated: Generated, verdict: Verdict) -> Verdict:
    """The verdict on an attempt's graph, once its SMILES was heard too."""
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


def _samples(
    generated: Generated,
    verdicts: Sequence[Verdict],
    known: set[str],
    given: Skeletons | None,
    labels: Tensor | None,
) -> list[Sample]:
    first = verdicts[:_SAMPLES]
    if given is None or labels is None:
        return [
            Sample(v.smiles if v.strict else text, v.strict, v.smiles not in known, v.reason)
            for v, text in zip(first, generated.smiles, strict=False)
        ]
    samples = []
    graphs, ends, truth = given.graphs(labels), given.batch.graph.ptr.tolist(), given.batch.atoms
    for i, (verdict, graph) in enumerate(zip(first, graphs, strict=False)):
        changed = int((labels != truth)[ends[i] : ends[i + 1]].sum())
        drawn = verdict.smiles if verdict.strict else _as_drawn(decode(*graph))
        novel = verdict.smiles not in known
        samples.append(Sample(drawn, verdict.strict, novel, verdict.reason, changed, ends[i + 1] - ends[i]))
    return samples


def _as_drawn(mol: Chem.Mol) -> str:
    with rdBase.BlockLogs():
        mol.UpdatePropertyCache(strict=False)
        return str(Chem.MolToSmiles(mol))


def _train_smiles(train: EncodedMolecules | Iterable[str], watch: Watch, notes: list[str]) -> set[str]:
    if isinstance(train, EncodedMolecules):
        return {train.smiles(i) for i in range(len(train))}
    texts = [(text.strip(),) for text in train]
    with closing(answers(f"{__name__}:_canonical_or_none", texts, len(texts), describe.FEW)) as answered:
        found = list(watch(answered, len(texts), "training split"))
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
