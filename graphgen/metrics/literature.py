"""Validity, uniqueness and novelty as others define them, each by its own name.

They are here so that a published row can be compared; the numbers to trust are in ``counts``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rdkit import Chem, rdBase

from graphgen.metrics.measure import Measure
from graphgen.molecules.codec import canonical_smiles

_UNIQUE_AT = (1_000, 10_000)
# Those that GDSS's construct_mol may charge, and the valence it takes for theirs.
_PATCHED = {7: 3, 8: 2, 16: 2}

_MOSES_VALID = "RDKit's MolFromSmiles reads it / n; radicals, charges and fragments pass"
_MOSES_UNIQUE = "distinct canonical SMILES (with stereo) among the first k valid ones / k"
_MOSES_NOVELTY = "distinct valid molecules not in the training split / distinct valid ones; without stereo on both sides"
_DIG_VALID = "as MOSES valid: radicals and fragments pass"
_DIG_UNIQUE = "distinct canonical SMILES among the valid ones / valid ones"
_DIG_NOVEL = "valid ones, each duplicate again, that are not in the training split / valid ones; without stereo"
_GDSS_VALID = (
    "'validity without correction': charges dropped, N, O and S that a bond puts 1 above their valence are charged +1, "
    "then every atom has a valence RDKit permits / n; kekulisation and fragments are not looked at"
)


def moses(smiles: Sequence[str | None], train: Collection[str] = ()) -> list[Measure]:
    """Valid, unique@1000, unique@10000 and novelty as MOSES defines them.

    Args:
        smiles: one of each attempt, None where it gave none.
        train: canonical SMILES as ``codec.canonical_smiles`` writes them; without any there is no novelty.

    Raises:
        ValueError: there are no attempts.
    """
    names, plain = _read(smiles)
    found = [Measure("MOSES valid", len(names) / len(smiles), len(smiles), _MOSES_VALID)]
    for k in _UNIQUE_AT:
        short = None if len(names) >= k else f"only {len(names)} valid molecules; generate more"
        value = None if short else len(set(names[:k])) / k
        found.append(Measure(f"MOSES unique@{k}", value, min(k, len(names)), _MOSES_UNIQUE, missing=short))
    if train and plain:
        distinct = set(plain)
        new = sum(text not in train for text in distinct) / len(distinct)
        found.append(Measure("MOSES novelty", new, len(distinct), _MOSES_NOVELTY, len(train)))
    return found


def dig(smiles: Sequence[str | None], train: Collection[str] = ()) -> list[Measure]:
    """Valid, unique and novel ratio as DIG's ``Rand_Gen_Evaluator`` defines them, as shares.

    Args and errors as of :func:`moses`.
    """
    names, plain = _read(smiles)
    found = [Measure("DIG valid", len(names) / len(smiles), len(smiles), _DIG_VALID)]
    if names:
        found.append(Measure("DIG unique", len(set(names)) / len(names), len(names), _DIG_UNIQUE))
    if train and plain:
        new = sum(text not in train for text in plain) / len(plain)
        found.append(Measure("DIG novel", new, len(plain), _DIG_NOVEL, len(train)))
    return found


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
        elements = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
        bonds = {
            (max(pair), min(pair)): bond.GetBondType()
            for bond in mol.GetBonds()
            for pair in [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())]
        }
        built = Chem.RWMol()
        for element in elements:
            built.AddAtom(Chem.Atom(element))
        fault = None
        for ends in sorted(bonds):
            built.AddBond(*ends, bonds[ends])
            fault = _first_fault(built)
            if fault is not None:
                atom = built.GetAtomWithIdx(fault)
                usual = _PATCHED.get(atom.GetAtomicNum())
                if usual is not None and sum(b.GetBondTypeAsDouble() for b in atom.GetBonds()) == usual + 1:
                    atom.SetFormalCharge(1)
        return _first_fault(built) is None


def _first_fault(mol: Chem.Mol) -> int | None:
    try:
        Chem.SanitizeMol(mol, sanitizeOps=Chem.SanitizeFlags.SANITIZE_PROPERTIES)
    except Chem.AtomValenceException as error:
        return int(error.cause.GetAtomIdx())
    return None


def _kekulised(text: str) -> Chem.Mol | None:
    mol = Chem.MolFromSmiles(text)
    if mol is not None:
        Chem.Kekulize(mol, clearAromaticFlags=True)
        return mol
    mol = Chem.MolFromSmiles(text, sanitize=False)
    return None if mol is None or any(bond.GetIsAromatic() for bond in mol.GetBonds()) else mol


def _read(smiles: Sequence[str | None]) -> tuple[list[str], list[str]]:
    """Canonical SMILES of what RDKit reads, with stereo and without."""
    if not len(smiles):
        raise ValueError("no attempts")
    names, plain = [], []
    with rdBase.BlockLogs():
        for text in smiles:
            mol = Chem.MolFromSmiles(text) if text else None
            if mol is not None:
                names.append(Chem.MolToSmiles(mol))
                plain.append(canonical_smiles(mol))
    return names, plain
