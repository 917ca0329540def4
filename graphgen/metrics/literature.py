"""Validity, uniqueness and novelty as others define them, each by its own name.

They are here so that a published row can be compared; the numbers to trust are in ``counts``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rdkit import Chem, rdBase

from graphgen.metrics.measure import Measure
from graphgen.metrics.strict import first_fault
from graphgen.molecules.codec import canonical_smiles

_UNIQUE_AT = (1_000, 10_000)
# Stereo, isotopes, atom maps, written hydrogens: without these a canonical SMILES is the same with and without stereo.
_MARKED = re.compile(r"[@/\\]|\[\d|:\d|\[H")
# Those that GDSS's construct_mol may charge, and the valence it takes for theirs.
_PATCHED = {7: 3, 8: 2, 16: 2}

_MOSES_VALID = "RDKit's MolFromSmiles reads it / n; radicals, charges and fragments pass"
_MOSES_UNIQUE = "distinct canonical SMILES (with stereo) among the first k valid ones / k"
_MOSES_NOVELTY = (
    "distinct valid molecules not in the training split / distinct valid ones; without stereo on both sides"
)
_DIG_VALID = "as MOSES valid: radicals and fragments pass"
_DIG_UNIQUE = "distinct canonical SMILES among the valid ones / valid ones"
_DIG_NOVEL = "valid ones, each duplicate again, that are not in the training split / valid ones; without stereo"
_GDSS_VALID = (
    "'validity without correction': charges dropped, N, O and S that a bond puts 1 above their valence are charged +1, "
    "then every atom has a valence RDKit permits / n; kekulisation and fragments are not looked at"
)


class Readings(NamedTuple):
    """What RDKit makes of n attempts.

    Attributes:
        n: attempts.
        names: canonical SMILES, with stereo, of those it reads.
        plain: the same without stereo, as ``codec.canonical_smiles`` writes them.
    """

    n: int
    names: list[str]
    plain: list[str]


def read(smiles: Sequence[str | None], known: Sequence[str | None] | None = None) -> Readings:
    """Read one SMILES of each attempt, None where it gave none.

    Args:
        smiles: as the generator gave them.
        known: what ``codec.canonical_smiles`` makes of each, where it is known already; saves reading again
            those that have no stereo marks.

    Raises:
        ValueError: there are no attempts.
    """
    if not len(smiles):
        raise ValueError("no attempts")
    found = Readings(len(smiles), [], [])
    with rdBase.BlockLogs():
        for text, plain in zip(smiles, known or [None] * len(smiles), strict=True):
            if text and plain is not None and not _MARKED.search(text):
                found.names.append(plain)
                found.plain.append(plain)
                continue
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                name = Chem.MolToSmiles(mol)
                found.names.append(name)
                found.plain.append(canonical_smiles(mol) if _MARKED.search(name) else name)
    return found


def moses(found: Readings, train: Collection[str] = ()) -> list[Measure]:
    """Valid, unique@1000, unique@10000 and novelty as MOSES defines them.

    Args:
        found: the attempts.
        train: canonical SMILES as ``codec.canonical_smiles`` writes them; without any there is no novelty.
    """
    valid = len(found.names)
    measures = [Measure("MOSES valid", valid / found.n, found.n, _MOSES_VALID)]
    for k in _UNIQUE_AT:
        short = None if valid >= k else f"only {valid} valid molecules; generate more"
        value = None if short else len(set(found.names[:k])) / k
        measures.append(Measure(f"MOSES unique@{k}", value, min(k, valid), _MOSES_UNIQUE, missing=short))
    if train and valid:
        distinct = set(found.plain)
        new = sum(text not in train for text in distinct) / len(distinct)
        measures.append(Measure("MOSES novelty", new, len(distinct), _MOSES_NOVELTY, len(train)))
    return measures


def dig(found: Readings, train: Collection[str] = ()) -> list[Measure]:
    """Valid, unique and novel ratio as DIG's ``Rand_Gen_Evaluator`` defines them, as shares; see :func:`moses`."""
    valid = len(found.names)
    measures = [Measure("DIG valid", valid / found.n, found.n, _DIG_VALID)]
    if valid:
        measures.append(Measure("DIG unique", len(set(found.names)) / valid, valid, _DIG_UNIQUE))
    if train and valid:
        new = sum(text not in train for text in found.plain) / valid
        measures.append(Measure("DIG novel", new, valid, _DIG_NOVEL, len(train)))
    return measures


def gdss(valid: Sequence[bool]) -> Measure:
    """The measure of :func:`gdss_valid` over all attempts.

    Raises:
        ValueError: there are no attempts.
    """
    if not valid:
        raise ValueError("no attempts")
    return Measure("GDSS valid", sum(valid) / len(valid), len(valid), _GDSS_VALID)


def gdss_valid(molecule: Chem.Mol | str | None) -> bool:
    """GDSS's validity without correction: valence alone, after its patch of charges.

    The molecule is rebuilt bond by bond from elements and bond orders. Whenever a bond leaves some atom beyond
    its valence, the first such atom is charged +1 if it is N, O or S and 1 above 3, 2 or 2. What counts is
    whether all valences are permitted at the end. It follows ``construct_mol`` and ``correct_mol`` of GDSS.

    Args:
        molecule: a graph, which need not be sanitised; a SMILES, which is kekulised first; or None, which is
            not valid.
    """
    with rdBase.BlockLogs():
        mol = _kekulised(molecule) if isinstance(molecule, str) else molecule
        if mol is None:
            return False
        bare = Chem.RWMol()
        for atom in mol.GetAtoms():
            bare.AddAtom(Chem.Atom(atom.GetAtomicNum()))
        ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
        bonds = [(max(pair), min(pair), bond.GetBondType()) for pair, bond in zip(ends, mol.GetBonds(), strict=True)]
        whole = Chem.RWMol(bare)
        for bond in bonds:
            whole.AddBond(*bond)
        # Valences only grow on the way, so where the end has no fault nothing would have been charged.
        return first_fault(whole) is None or _patched(bare, sorted(bonds))


def _patched(mol: Chem.RWMol, bonds: Sequence[tuple[int, int, Chem.BondType]]) -> bool:
    fault = None
    for bond in bonds:
        mol.AddBond(*bond)
        fault = first_fault(mol)
        if fault is not None:
            atom = mol.GetAtomWithIdx(fault)
            usual = _PATCHED.get(atom.GetAtomicNum())
            if usual is not None and sum(b.GetBondTypeAsDouble() for b in atom.GetBonds()) == usual + 1:
                atom.SetFormalCharge(1)
    return first_fault(mol) is None


def _kekulised(text: str) -> Chem.Mol | None:
    if not text:
        return None
    mol = Chem.MolFromSmiles(text)
    if mol is not None:
        Chem.Kekulize(mol, clearAromaticFlags=True)
        return mol
    mol = Chem.MolFromSmiles(text, sanitize=False)
    return None if mol is None or any(bond.GetIsAromatic() for bond in mol.GetBonds()) else mol
