"""What a metric reads without any model: the value to hold a result against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from graphgen.molecules.encoded import EncodedMolecules
from graphgen.molecules.records import Record, Reject


def as_in_source(molecules: EncodedMolecules, records: Iterable[Record | Reject]) -> list[str] | None:
    """The texts that ``molecules``, a set or a view of it, were encoded from, stereo and all.

    Args:
        records: of the source, as ``read_records`` gives them.

    Returns:
        M SMILES; None where the source is not a list of SMILES, or has changed.
    """
    rejected = {reject.where for reject in molecules.rejects}
    kept = [r for r in records if isinstance(r, Record) and r.where not in rejected]
    rows: Sequence[int] = molecules.rows.tolist()
    if len(kept) != molecules.report["encoded"] or any(kept[i].form != "smiles" for i in rows):
        return None
    return [kept[i].text for i in rows]


def ideal_uniqueness(population: int, draws: int) -> float:
    """Expected share of distinct molecules among ``draws`` from a sampler that is perfect.

    Drawing n times uniformly, with replacement, from N molecules gives N (1 - exp(-n / N)) distinct ones. A
    model of an exhaustive set such as QM9 that is more unique than this has left its distribution.

    Raises:
        ValueError: ``population`` or ``draws`` is not positive.
    """
    if population <= 0 or draws <= 0:
        raise ValueError(f"population and draws must be positive, got {population} and {draws}")
    return -math.expm1(-draws / population) * population / draws
