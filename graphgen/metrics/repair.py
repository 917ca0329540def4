"""Validity after repair, which is another question than validity, and stands in a column of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, TypedDict

from rdkit import Chem, rdBase

from graphgen.metrics.strict import Verdict, classify, first_fault

RULE = (
    "valence repair and largest fragment: while an atom has more than the valence RDKit permits, the highest of the "
    "first such atom's bonds (the first of equal ones) is lowered by one order, a single bond removed; then the "
    "fragment of most atoms is kept (the first of equal ones). No charge is added and no atom changed. It is MoFlow's "
    "correction, which GDSS and others use, without their patch of charges"
)


class Repaired(NamedTuple):
    """One attempt after repair.

    Attributes:
        verdict: on what the repair left; that on the attempt itself where nothing had to be done, or could be.
        changed: a bond or an atom was.
        atoms, lost: how many atoms the attempt had, and how many went with smaller fragments.
    """

    verdict: Verdict
    changed: bool
    atoms: int
    lost: int


class AfterRepair(TypedDict):
    """Shares of the n attempts, but for ``atoms_lost``, which is of the atoms of all attempts that have any."""

    n: int
    changed: float
    atoms_lost: float
    V_strict: float
    VU: float
    VUN: float


def repaired(molecule: Chem.Mol | str, verdict: Verdict) -> Repaired:
    """Repair one attempt by :data:`RULE`.

    Args:
        molecule: what was generated; it is left as it is. A SMILES that cannot be read stays what it is.
        verdict: on it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(molecule, sanitize=False) if isinstance(molecule, str) else molecule
        if mol is None or verdict.strict:
            return Repaired(verdict, False, 0 if mol is None else mol.GetNumAtoms(), 0)
        whole = Chem.RWMol(mol)
        lowered = _permit_valences(whole)
        lost = _keep_largest_fragment(whole)
    if not lowered and not lost:
        return Repaired(verdict, False, mol.GetNumAtoms(), 0)
    return Repaired(classify(whole.GetMol()), True, mol.GetNumAtoms(), lost)


def after_repair(attempts: Sequence[Repaired], train: Collection[str]) -> AfterRepair:
    """Summarise all attempts, those given up included.

    Args:
        attempts: from :func:`repaired`.
        train: canonical SMILES as ``codec.canonical_smiles`` writes them; a set, for speed.

    Raises:
        ValueError: there are no attempts.
    """
    n = len(attempts)
    if not n:
        raise ValueError("no attempts to summarise")
    valid = [a.verdict.smiles for a in attempts if a.verdict.strict and a.verdict.smiles is not None]
    unique = set(valid)
    return AfterRepair(
        n=n,
        changed=sum(a.changed for a in attempts) / n,
        atoms_lost=sum(a.lost for a in attempts) / max(sum(a.atoms for a in attempts), 1),
        V_strict=len(valid) / n,
        VU=len(unique) / n,
        VUN=sum(smiles not in train for smiles in unique) / n,
    )


_LOWERED = {2: Chem.BondType.SINGLE, 3: Chem.BondType.DOUBLE, 4: Chem.BondType.TRIPLE}


def _permit_valences(mol: Chem.RWMol) -> bool:
    """Lower bonds until no atom has too many; whether any was."""
    if any(bond.GetIsAromatic() for bond in mol.GetBonds()):
        # Half orders cannot be lowered by one, and what has no Kekulé form has no orders to lower.
        try:
            mol.UpdatePropertyCache(strict=False)
            Chem.FastFindRings(mol)
            Chem.Kekulize(mol, clearAromaticFlags=True)
        except ValueError:
            return False
    lowered = False
    while (fault := first_fault(mol)) is not None:
        bonds = mol.GetAtomWithIdx(fault).GetBonds()
        if not bonds:
            break
        bond = max(bonds, key=lambda b: b.GetBondTypeAsDouble())
        order, ends = int(bond.GetBondTypeAsDouble()), (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        # Taken out and put in again, the bond is its atoms' last, as with MoFlow: which bond is next depends on it.
        mol.RemoveBond(*ends)
        if order in _LOWERED:
            mol.AddBond(*ends, _LOWERED[order])
        lowered = True
    return lowered


def _keep_largest_fragment(mol: Chem.RWMol) -> int:
    """How many atoms went."""
    fragments: list[tuple[int, ...]] = list(Chem.GetMolFrags(mol))
    if len(fragments) < 2:
        return 0
    kept = set(max(fragments, key=lambda atoms: len(list(atoms))))
    gone = [atom for atom in range(mol.GetNumAtoms()) if atom not in kept]
    for atom in reversed(gone):
        mol.RemoveAtom(atom)
    return len(gone)
