"""Three notions of validity, from the weakest to the one that counts."""

from __future__ import annotations

from typing import NamedTuple

from rdkit import Chem, rdBase

from graphgen.molecules.codec import canonical_smiles


class Verdict(NamedTuple):
    """What one attempt amounts to.

    Attributes:
        valence: V_valence, every atom as drawn has a valence that RDKit permits.
        full: V_full, RDKit's ``SanitizeMol`` accepts it, whose clean-up may rewrite charges as in N(=O)=O.
        strict: V_strict, valence and full as drawn, and: at least one atom, none of them a dummy; one
            fragment; no radicals; its canonical SMILES reads back to the same molecule. Nothing is repaired.
        smiles: the canonical SMILES of a full molecule, else None.
        reason: why it is not strict, else None; what follows the first colon is detail.
    """

    valence: bool
    full: bool
    strict: bool
    smiles: str | None
    reason: str | None


def failed(reason: str) -> Verdict:
    """The verdict on an attempt that gave no molecule at all."""
    return Verdict(False, False, False, None, reason)


def classify(molecule: Chem.Mol | str) -> Verdict:
    """Judge one molecule in one pass. RDKit's log stays silent.

    Args:
        molecule: a SMILES, or a molecule that need not be sanitised and is left as it is.
    """
    return examine(molecule)[0]


def examine(molecule: Chem.Mol | str) -> tuple[Verdict, Chem.Mol | None]:
    """As :func:`classify`, together with the molecule that its canonical SMILES reads back to, if it is strict."""
    with rdBase.BlockLogs():
        mol = _read(molecule) if isinstance(molecule, str) else Chem.Mol(molecule)
        if mol is None:
            return failed("not a SMILES"), None
        if not mol.GetNumAtoms():
            return failed("no atoms"), None
        fault = _valence_fault(mol)
        try:
            smiles = canonical_smiles(mol)
        except ValueError as error:
            return Verdict(fault is None, False, False, None, fault or f"sanitising: {error}"), None
        if fault:
            return Verdict(False, True, False, smiles, fault), None
        again = Chem.MolFromSmiles(smiles)
        reason = _strict_fault(smiles, again)
    return Verdict(True, True, reason is None, smiles, reason), again if reason is None else None


def first_fault(mol: Chem.Mol) -> int | None:
    """The first atom beyond the valence that RDKit permits, or None. Computes the implicit hydrogens of ``mol``."""
    try:
        Chem.SanitizeMol(mol, sanitizeOps=Chem.SanitizeFlags.SANITIZE_PROPERTIES)
    except Chem.AtomValenceException as error:
        return int(error.cause.GetAtomIdx())  # type: ignore[attr-defined]
    return None


def _read(text: str) -> Chem.Mol | None:
    # RDKit takes what follows a blank for a name, which would turn a damaged row into a smaller molecule.
    if any(not "!" <= character <= "~" for character in text):
        return None
    return Chem.MolFromSmiles(text, sanitize=False)


def _valence_fault(mol: Chem.Mol) -> str | None:
    try:
        mol.UpdatePropertyCache(strict=True)
    except ValueError as error:
        return f"valence: {error}"
    return None


def _strict_fault(smiles: str, again: Chem.Mol | None) -> str | None:
    # All is asked of the molecule that was read back: a radical shows there as well, and the first one is
    # still unsanitised.
    if again is None or Chem.MolToSmiles(again, isomericSmiles=False) != smiles:
        return "round trip"
    if fragments := smiles.count("."):
        return f"fragments: {fragments + 1}"
    for i in range(again.GetNumAtoms()):  # several times as fast as GetAtoms
        atom = again.GetAtomWithIdx(i)
        if not atom.GetAtomicNum():
            return "dummy atom"
        if atom.GetNumRadicalElectrons():
            return f"radical: on {atom.GetSymbol()}"
    return None
