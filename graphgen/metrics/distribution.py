"""Generated molecules as a distribution: how varied, how far from real ones, and how far real ones are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from graphgen.metrics import nspdk, patterns, tanimoto
from graphgen.metrics.describe import BONDS, PROPERTIES, Description
from graphgen.metrics.distances import BINS, binned, kl, shared_counts, total_variation, wasserstein
from graphgen.metrics.measure import Measure

_HISTOGRAM_BINS = 20
_PROPERTY_BINS = 32
_SHOWN = (0.002, 0.998)
_LARGEST_ELEMENT = 119
_SMALLEST_RING, _LARGE_RING = 3, 8

_FINGERPRINT = "Tanimoto similarity of Morgan fingerprints (radius 2, 1,024 bits)"
DEFINITIONS: Mapping[str, str] = {
    "IntDiv1": f"MOSES: 1 - mean {_FINGERPRINT} over all pairs, a molecule with itself included; 1 is most varied",
    "IntDiv2": "MOSES: as IntDiv1, with the root of the mean squared similarity of each molecule to all",
    "SNN": f"MOSES: mean {_FINGERPRINT} to the nearest reference molecule; grows with the reference",
    "Frag": "MOSES: cosine of the counts of BRICS fragments; 1 is best",
    "Scaf": "MOSES: cosine of the counts of Murcko scaffolds of two rings or more; 1 is best",
    "Filters": "MOSES: share without rings beyond 7 atoms, charges, elements other than C N S O F Cl Br H, and MCF and "
    "PAINS patterns",
    "NSPDK-MMD": "squared MMD under the neighbourhood subgraph pairwise distance kernel, radius and distance 0 to 4, "
    "labels element and bond order (aromatic 1) as GDSS has them, no hashing of features, all pairs; 0 is best, and n "
    "real molecules reach about 1/n",
    "W1": "Wasserstein-1 distance to the reference in the property's own unit (atoms, rings, g/mol); for elements and "
    "bonds, whose kinds are all 1 apart, total variation; of the composition, the sum over elements of that of their "
    "numbers in a molecule; 0 is best",
    "KL": "divergence from the reference to the sample in nats, one count added to each kind; logP, QED, SA and weight "
    f"in {BINS} bins of equal share in the reference; 0 is best",
}
_PROPERTY_DEFINITIONS: Mapping[str, str] = {
    "size": "heavy atoms of a molecule",
    "rings": "rings of a molecule (smallest set of smallest rings)",
    "ring sizes": "atoms of a ring, as share of all rings; the last kind is that size and beyond",
    "elements": "share of all heavy atoms",
    "bonds": "share of all bonds, aromatic ones as such",
    "logP": "Crippen's octanol-water partition coefficient, as RDKit has it",
    "QED": "quantitative estimate of drug-likeness; 1 is most drug-like",
    "SA": "synthetic accessibility score; 1 is easy to make, 10 hard",
    "weight": "average molecular weight with hydrogens, in g/mol",
}
NEAREST = f"{_FINGERPRINT} to the nearest of a sample of the training split; 1 is a fingerprint that is in it"


UNITS: Mapping[str, str] = {"size": "atoms", "weight": "g/mol"}
"""Of the properties that have one."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Shares of K bins, or of K kinds, in two or more sets of molecules.

    Attributes:
        name, definition: of the quantity.
        bins: the K + 1 edges of the bins, or the names of the K kinds.
        shares: for each set its [K] shares.
        n: for each set how many molecules it has.
        n_reference: how many molecules a nearest one was looked for in; None where none was.
    """

    name: str
    definition: str
    bins: Sequence[float] | Sequence[str]
    shares: Mapping[str, Sequence[float]]
    n: Mapping[str, int]
    n_reference: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields in types that JSON has, those without content left out."""
        fields = {**vars(self), "bins": list(self.bins), "n": dict(self.n)}
        fields["shares"] = {name: list(values) for name, values in self.shares.items()}
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Floor:
    """What real molecules reach in the place of generated ones; depends on the data alone.

    Attributes:
        values: of each measure, with training molecules in their place.
        nearest: [20] shares of the held-out molecules by similarity to the nearest training molecule.
        processed: of each measure, with the held-out molecules as they are encoded in their place, and these as
            their source has them for a reference. Empty where the source is not at hand.
    """

    values: Mapping[str, float | None]
    nearest: Sequence[float]
    processed: Mapping[str, float | None]


def floor_of(train: Description, reference: Description, raw: Description | None = None) -> Floor:
    """The floor that a sample of the training split sets, and the codec.

    Args:
        train: training molecules.
        reference: held-out molecules.
        raw: the same as their source has them.

    Raises:
        ValueError: a side is empty.
    """
    values = {measure.name: measure.value for measure in compare(train, reference)[0]}
    processed: dict[str, float | None] = {}
    if raw is not None and len(raw):
        # What has no other side, such as IntDiv, is no comparison with the source.
        processed = {m.name: m.value for m in compare(reference, raw)[0] if m.n_reference is not None}
    return Floor(values, _shares(tanimoto.nearest(reference.fingerprints, train.fingerprints)), processed)


def compare(
    generated: Description, reference: Description, train: Description | None = None, floor: Floor | None = None
) -> tuple[list[Measure], list[Histogram]]:
    """Every distribution metric of ``generated`` against ``reference``.

    Args:
        generated: valid molecules, duplicates included.
        reference: held-out molecules.
        train: a sample of the training split, of the size of ``generated`` where it can be. Both sides are
            looked up in it.
        floor: of ``train``, where it is known already.

    Raises:
        ValueError: the reference is empty.
    """
    if not len(reference):
        raise ValueError("there are no reference molecules")
    if not len(generated):
        return [_nothing(name, len(reference)) for name in DEFINITIONS], []
    found = list(_measures(generated, reference))
    if train is None or not len(train):
        return found, []
    floor = floor or floor_of(train, reference)
    histogram = Histogram(
        "nearest training molecule",
        NEAREST,
        [i / _HISTOGRAM_BINS for i in range(_HISTOGRAM_BINS + 1)],
        {
            "generated": _shares(tanimoto.nearest(generated.fingerprints, train.fingerprints)),
            "held out": floor.nearest,
        },
        {"generated": len(generated), "held out": len(reference)},
        len(train),
    )
    measures = [replace(m, floor=floor.values.get(m.name), processed=floor.processed.get(m.name)) for m in found]
    return measures, [histogram]


def properties(generated: Description, reference: Description) -> list[Histogram]:
    """Size, rings, ring sizes, elements, bonds, logP, QED, SA and weight of both sets.

    As shares of molecules, or of rings, atoms and bonds; ring sizes where both sets have rings.

    Raises:
        ValueError: a set is empty.
    """
    if not len(generated) or not len(reference):
        raise ValueError("a set is empty")
    sets = {"generated": generated, "held out": reference}
    n = {name: len(x) for name, x in sets.items()}

    def of_kinds(name: str, definition: str, kinds: Sequence[str], counts: Mapping[str, NDArray]) -> Histogram:
        shares = {key: (value / max(value.sum(), 1)).tolist() for key, value in counts.items()}
        return Histogram(name, definition, list(kinds), shares, n)

    def of_numbers(name: str, definition: str, edges: NDArray, values: Mapping[str, NDArray]) -> Histogram:
        shares = {}
        for key, x in values.items():
            # The outer bins hold what lies beyond them.
            counts, _ = np.histogram(np.clip(x, edges[0], edges[-1]), edges)
            shares[key] = (counts / len(x)).tolist()
        return Histogram(name, definition, edges.tolist(), shares, n)

    found = []
    for name, of in (("size", lambda x: np.diff(x.node_ptr)), ("rings", lambda x: x.rings)):
        values = {key: of(x) for key, x in sets.items()}
        low = min(int(x.min()) for x in values.values())
        high = max(int(x.max()) for x in values.values())
        step = 1 + (high - low) // (2 * _PROPERTY_BINS)
        edges = np.arange(low, high + step + 1, step) - 0.5
        found.append(of_numbers(name, _PROPERTY_DEFINITIONS[name], edges, values))
    if all(len(x.ring_sizes) for x in sets.values()):
        kinds = [*map(str, range(_SMALLEST_RING, _LARGE_RING)), f"{_LARGE_RING}+"]
        counts = {key: _ring_counts(x.ring_sizes) for key, x in sets.items()}
        found.append(of_kinds("ring sizes", _PROPERTY_DEFINITIONS["ring sizes"], kinds, counts))
    elements = {key: np.bincount(x.elements, minlength=_LARGEST_ELEMENT) for key, x in sets.items()}
    total = elements["generated"] + elements["held out"]
    order = [int(z) for z in np.argsort(-total, kind="stable") if total[z]]
    kinds = [Chem.GetPeriodicTable().GetElementSymbol(z) for z in order]
    counts = {key: x[order] for key, x in elements.items()}
    found.append(of_kinds("elements", _PROPERTY_DEFINITIONS["elements"], kinds, counts))
    counts = {key: np.bincount(x.bonds[:, 2], minlength=len(BONDS)) for key, x in sets.items()}
    found.append(of_kinds("bonds", _PROPERTY_DEFINITIONS["bonds"], BONDS, counts))
    for i, name in enumerate(PROPERTIES):
        values = {key: x.properties[:, i] for key, x in sets.items()}
        both = np.concatenate(list(values.values()))
        if np.isfinite(both).all():
            # A few extremes would squeeze all others into one bin.
            low, high = np.quantile(both, _SHOWN)
            edges = np.linspace(low, high if high > low else low + 1, _PROPERTY_BINS + 1)
            found.append(of_numbers(name, _PROPERTY_DEFINITIONS[name], edges, values))
    return found


def _measures(sample: Description, reference: Description) -> Iterator[Measure]:
    yield from internal_diversity(sample)
    yield snn(sample, reference)
    yield frag(sample, reference)
    yield scaf(sample, reference)
    yield filters(sample)
    yield Measure("NSPDK-MMD", nspdk.mmd(sample, reference), len(sample), DEFINITIONS["NSPDK-MMD"], len(reference))
    definition = DEFINITIONS["W1"]
    yield Measure("W1 composition", composition(sample, reference), len(sample), definition, len(reference))
    for what, (p, q, distance) in _differences(sample, reference).items():
        usable = math.isfinite(distance)
        lacking = "this build of RDKit lacks Contrib/SA_Score" if what == "SA" else "a side has none"
        why = None if usable else lacking
        for name, value in ((f"W1 {what}", distance), (f"KL {what}", kl(p, q))):
            definition = DEFINITIONS[name.split()[0]]
            yield Measure(name, value if usable else None, len(sample), definition, len(reference), missing=why)


def composition(sample: Description, reference: Description) -> float:
    """Wasserstein distance of the number of an element's atoms in a molecule, summed over the elements."""
    found = 0.0
    for element in np.union1d(sample.elements, reference.elements):
        here = (np.append(0, np.cumsum(x.elements == element))[x.node_ptr] for x in (sample, reference))
        found += wasserstein(*map(np.diff, here))
    return found


def internal_diversity(sample: Description) -> list[Measure]:
    """IntDiv1 and IntDiv2."""
    means = tanimoto.power_means(sample.fingerprints, (1, 2))
    values = (1 - means[0].mean(), 1 - np.sqrt(means[1]).mean())
    return [
        Measure(name, float(value), len(sample), DEFINITIONS[name])
        for name, value in zip(("IntDiv1", "IntDiv2"), values, strict=True)
    ]


def snn(sample: Description, reference: Description) -> Measure:
    """Mean similarity to the nearest reference molecule."""
    nearest = tanimoto.nearest(sample.fingerprints, reference.fingerprints)
    return Measure("SNN", float(nearest.mean()), len(sample), DEFINITIONS["SNN"], len(reference))


def frag(sample: Description, reference: Description) -> Measure:
    """Cosine of BRICS fragments."""
    return _cosine("Frag", sample, sample.fragments, reference, reference.fragments)


def scaf(sample: Description, reference: Description) -> Measure:
    """Cosine of Murcko scaffolds; there is none where a side has no molecule of two rings."""
    return _cosine("Scaf", sample, sample.scaffolds, reference, reference.scaffolds)


def filters(sample: Description) -> Measure:
    """Share that passes the MOSES filters, if ``sample`` was described with them."""
    if sample.passes is None:
        why = patterns.missing() or "not asked for"
        return Measure("Filters", None, len(sample), DEFINITIONS["Filters"], missing=why)
    return Measure("Filters", float(sample.passes.mean()), len(sample), DEFINITIONS["Filters"])


def _cosine(
    name: str, sample: Description, ours: Counter[str], reference: Description, theirs: Counter[str]
) -> Measure:
    length = math.sqrt(sum(v * v for v in ours.values())) * math.sqrt(sum(v * v for v in theirs.values()))
    dot = sum(count * theirs[key] for key, count in ours.items())
    why = None if length else "a side has none"
    value = dot / length if length else None
    return Measure(name, value, len(sample), DEFINITIONS[name], len(reference), missing=why)


def _differences(sample: Description, reference: Description) -> dict[str, tuple[NDArray, NDArray, float]]:
    """For each property: reference counts, sample counts, Wasserstein distance."""
    found: dict[str, tuple[NDArray, NDArray, float]] = {}
    for name, of in (("size", lambda x: np.diff(x.node_ptr)), ("rings", lambda x: x.rings)):
        found[name] = (*shared_counts(of(reference), of(sample)), wasserstein(of(reference), of(sample)))
    both = all(len(x.ring_sizes) for x in (reference, sample))
    of_real, of_ours = _ring_counts(reference.ring_sizes), _ring_counts(sample.ring_sizes)
    found["ring sizes"] = (of_real, of_ours, wasserstein(reference.ring_sizes, sample.ring_sizes) if both else math.nan)
    elements = [np.bincount(x.elements, minlength=_LARGEST_ELEMENT) for x in (reference, sample)]
    present = (elements[0] + elements[1]) > 0
    found["elements"] = (elements[0][present], elements[1][present], total_variation(*elements))
    bonds = [np.bincount(x.bonds[:, 2], minlength=len(BONDS)) for x in (reference, sample)]
    both = all(counts.sum() for counts in bonds)
    found["bonds"] = (bonds[0], bonds[1], total_variation(*bonds) if both else math.nan)
    for i, name in enumerate(PROPERTIES):
        real, ours = reference.properties[:, i], sample.properties[:, i]
        found[name] = (*binned(real, ours), wasserstein(real, ours))
    return found


def _ring_counts(sizes: NDArray[np.integer]) -> NDArray[np.integer]:
    kinds = _LARGE_RING - _SMALLEST_RING + 1
    return np.bincount(np.minimum(sizes, _LARGE_RING) - _SMALLEST_RING, minlength=kinds)


def _shares(values: NDArray[np.float64]) -> list[float]:
    counts, _ = np.histogram(values, bins=_HISTOGRAM_BINS, range=(0, 1))
    return (counts / len(values)).tolist()


def _nothing(name: str, n_reference: int) -> Measure:
    return Measure(name, None, 0, DEFINITIONS[name], n_reference, missing="no valid molecules")
