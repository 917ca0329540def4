"""Validity, uniqueness and novelty, every one as a share of all attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypedDict

from graphgen.metrics.strict import Verdict


class Summary(TypedDict):
    """Shares, not percentages. The denominator is n, the number of attempts, unless the name says otherwise.

    Two are None where their denominator is 0. ``failures`` counts what is not V_strict, by reason.
    """

    n: int
    V_strict: float
    V_full: float
    V_valence: float
    VU: float
    VUN: float
    unique_of_valid: float | None
    novel_of_unique: float | None
    failures: dict[str, int]


def summary(verdicts: Sequence[Verdict], train: Collection[str]) -> Summary:
    """Summarise ``verdicts``, one of each attempt, failures included.

    V.U counts the distinct molecules among the V_strict ones, V.U.N those of them that are not in ``train``.

    Args:
        verdicts: from :func:`graphgen.metrics.strict.classify`.
        train: canonical SMILES as ``codec.canonical_smiles`` writes them; a set, for speed.

    Raises:
        ValueError: there are no verdicts.
    """
    n = len(verdicts)
    if not n:
        raise ValueError("no attempts to summarise")
    valid = [v.smiles for v in verdicts if v.strict and v.smiles is not None]
    unique = set(valid)
    novel = sum(smiles not in train for smiles in unique)
    failures = Counter((v.reason or "no reason").split(":")[0] for v in verdicts if not v.strict)
    return Summary(
        n=n,
        V_strict=len(valid) / n,
        V_full=sum(v.full for v in verdicts) / n,
        V_valence=sum(v.valence for v in verdicts) / n,
        VU=len(unique) / n,
        VUN=novel / n,
        unique_of_valid=len(unique) / len(valid) if valid else None,
        novel_of_unique=novel / len(unique) if unique else None,
        failures=dict(failures.most_common()),
    )


def novelty(molecules: Iterable[str], train: Collection[str]) -> float:
    """Share of the distinct ``molecules`` that are not in ``train``; both canonical. 0 for no molecules."""
    unique = set(molecules)
    return sum(smiles not in train for smiles in unique) / max(len(unique), 1)
