"""All that is asked of one attempt, asked in one visit, so that it can be asked in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rdkit import Chem, rdBase

from graphgen.metrics import describe, literature
from graphgen.metrics.repair import Repaired, repaired
from graphgen.metrics.strict import Verdict, examine, failed
from graphgen.molecules.codec import decode

TASK = f"{__name__}:visit"


class Judgement(NamedTuple):
    """What one attempt amounts to.

    Attributes:
        verdict: V_strict and its weaker kin.
        gdss: GDSS's validity without correction.
        repaired: what became of it after repair; None if that was not asked.
        facts: of a strict molecule, for ``describe.collect``; None if that was not asked.
    """

    verdict: Verdict
    gdss: bool = False
    repaired: Repaired | None = None
    facts: list[Any] | str | None = None


def item(molecule: str | Sequence[Any] | None, asked: str = "", reason: str | None = None) -> list[Any]:
    """A request for :func:`visit`.

    Args:
        molecule: a SMILES, or the two arguments of ``codec.decode``, or None where the attempt gave nothing.
        asked: any of the letters g (GDSS's validity), r (repair), d (description), f (with the MOSES filters), and k
            for a SMILES known to be a molecule, of which nothing but the description is found.
        reason: why it gave nothing.
    """
    return [molecule, asked, reason]


def visit(molecule: str | Sequence[Any] | None, asked: str, reason: str | None) -> list[Any]:
    """Judge one attempt; the answer is what :func:`judgement` reads, in types that JSON has."""
    if "k" in asked:
        return [failed(""), False, None, describe.facts(str(molecule), "f" in asked)]
    if not molecule:
        verdict = failed(reason or "no molecule")
        return [verdict, False, Repaired(verdict, False, 0, 0), None]
    try:
        with rdBase.BlockLogs():
            given = molecule if isinstance(molecule, str) else decode(*molecule)
            verdict, mol = examine(given)
            return [
                verdict,
                "g" in asked and _gdss_valid(verdict, given),
                repaired(given, verdict) if "r" in asked else None,
                describe.facts_of(mol, "f" in asked) if "d" in asked and mol is not None else None,
            ]
    except Exception as error:
        # RDKit raises many kinds of exception on strange input; one attempt must not end an evaluation.
        verdict = failed(f"RDKit failed: {type(error).__name__}")
        return [verdict, False, Repaired(verdict, False, 0, 0), None]


def judgement(answer: list[Any] | str) -> Judgement:
    """What :func:`visit` answered, or why its process did not."""
    if isinstance(answer, str):
        return Judgement(failed(answer), False, Repaired(failed(answer), False, 0, 0))
    verdict, gdss, mended, facts = answer
    if mended is not None:
        mended = Repaired(Verdict(*mended[0]), *mended[1:])
    return Judgement(Verdict(*verdict), gdss, mended, facts)


def _gdss_valid(verdict: Verdict, molecule: Chem.Mol | str) -> bool:
    if verdict.strict and verdict.smiles is not None and not any(sign in verdict.smiles for sign in "+-"):
        # There is no charge to drop, so what it asks is part of V_strict.
        return True
    return literature.gdss_valid(molecule)
