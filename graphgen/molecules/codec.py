"""RDKit molecules to labelled graphs and back.

A graph keeps the heavy atoms with their formal charges and the kekulised bonds. Stereo, isotopes and atom-map
numbers are dropped on purpose; hydrogens are implied by valence. Any molecule that these cannot carry is
refused with a reason, never altered: what was encoded decodes to the same stereo-free canonical SMILES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from rdkit import Chem, rdBase

from graphgen.molecules.vocabulary import Atom, MoleculeGraph

_BOND_ORDERS = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
_BOND_INDEX = {order: i for i, order in enumerate(_BOND_ORDERS)}
# RDKit overflows its stack on deep nesting, and takes minutes for 100,000 atoms.
LONGEST_SMILES = 10_000
_LONGEST = {"smiles": LONGEST_SMILES, "molblock": 1_000_000}
_LOG_PREFIX = re.compile(r"^\[[\d:]+\]\s*(SMILES Parse Error: )?")


class EncodeError(ValueError):
    """A molecule that has no graph; ``reason`` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse(text: str, form: str = "smiles") -> Chem.Mol:
    """Read one molecule, sanitised, from a SMILES or (``form="molblock"``) a mol block.

    RDKit writes nothing to the log; what it had to say is in the exception instead.

    Raises:
        EncodeError: the text is empty, far too long, not of that form, or chemically impossible; all that
            follows the first colon of the reason is detail.
    """
    if len(text) > _LONGEST[form]:
        raise EncodeError(f"too long: {len(text)} characters, at most {_LONGEST[form]}")
    if form == "smiles":
        # RDKit would take "CC O" as CC named O, which would hide a damaged row.
        if not text:
            raise EncodeError("empty")
        for position, character in enumerate(text, start=1):
            if not "!" <= character <= "~":
                raise EncodeError(f"not a SMILES: character {character!a} at position {position}")
    reader = Chem.MolFromSmiles if form == "smiles" else Chem.MolFromMolBlock
    with rdBase.BlockLogs():
        mol = reader(text)
    if mol is None:
        raise EncodeError(_why_unreadable(text, form))
    return mol


def _why_unreadable(text: str, form: str) -> str:
    reader = Chem.MolFromSmiles if form == "smiles" else Chem.MolFromMolBlock
    mol, log = _logged(lambda: reader(text, sanitize=False))
    if mol is not None:
        try:
            with rdBase.BlockLogs():
                Chem.SanitizeMol(mol)
        except ValueError as error:
            return f"cannot be sanitised: {_first_line(str(error))}"
    kind = "SMILES" if form == "smiles" else "mol block"
    return f"not a {kind}: {log}" if log else f"not a {kind}"


def _logged(call: Callable[[], Chem.Mol | None]) -> tuple[Chem.Mol | None, str]:
    """The result of ``call`` and the first error RDKit logged (empty if RDKit is too old to say)."""
    if not hasattr(rdBase, "CaptureErrorLog"):
        with rdBase.BlockLogs():
            return call(), ""
    with rdBase.CaptureErrorLog() as log:
        result = call()
    return result, _first_line(_LOG_PREFIX.sub("", log.messages))


def _first_line(message: str) -> str:
    return message.strip().split("\n")[0][:200]


def canonical_smiles(mol: Chem.Mol) -> str:
    """The identity of a molecule: canonical SMILES without stereo, isotopes, atom maps, explicit hydrogens.

    ``mol`` may be unsanitised and is left as it is. Two molecules are the same to graphgen if and only if
    these strings are equal. They may differ between versions of RDKit.

    Raises:
        ValueError: the molecule cannot be sanitised (RDKit's own message).
    """
    return Chem.MolToSmiles(_plain(mol), isomericSmiles=False)


def _plain(mol: Chem.Mol) -> Chem.Mol:
    mol = Chem.Mol(mol)
    hydrogens = False
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
        hydrogens = hydrogens or atom.GetAtomicNum() == 1
    with rdBase.BlockLogs():
        Chem.RemoveStereochemistry(mol)
        Chem.SanitizeMol(mol)
        # Costly, and a labelled hydrogen ([2H]) is only now an ordinary one.
        return Chem.RemoveHs(mol) if hydrogens else mol


def encode(mol: Chem.Mol) -> MoleculeGraph:
    """The graph of a molecule: heavy atoms in RDKit's order, kekulised bonds.

    Raises:
        EncodeError: no heavy atoms, several fragments, a radical, a dummy atom, a hydrogen that valence does
            not imply, a bond that is not single, double or triple, a molecule RDKit cannot sanitise, or one
            whose graph decodes to another canonical SMILES (reason ``round trip``).
    """
    return encode_with_smiles(mol)[0]


def encode_with_smiles(mol: Chem.Mol) -> tuple[MoleculeGraph, str]:
    """As :func:`encode`, together with the molecule's :func:`canonical_smiles`."""
    try:
        plain = _plain(mol)
    except ValueError as error:
        raise EncodeError(f"cannot be sanitised: {_first_line(str(error))}") from None
    _refuse_uncodable(plain)
    smiles = Chem.MolToSmiles(plain, isomericSmiles=False)
    Chem.Kekulize(plain, clearAromaticFlags=True)
    graph = MoleculeGraph(
        atoms=tuple((atom.GetSymbol(), atom.GetFormalCharge()) for atom in plain.GetAtoms()),
        bonds=tuple(_bond(bond) for bond in plain.GetBonds()),
    )
    if _smiles_or_none(decode(*graph)) != smiles:
        raise EncodeError("round trip")
    return graph, smiles


def encode_scaffold(smiles: str) -> MoleculeGraph:
    """The graph of a part of a molecule, or of several that are not bonded to each other; free valences are hydrogens.

    Raises:
        EncodeError: as :func:`parse` and :func:`encode` have it, but for the several fragments.
    """
    mol = parse(smiles)
    atoms: list[Atom] = []
    bonds: list[tuple[int, int, int]] = []
    for fragment in map(encode, Chem.GetMolFrags(mol, asMols=True)):
        bonds += [(len(atoms) + u, len(atoms) + v, kind) for u, v, kind in fragment.bonds]
        atoms += fragment.atoms
    return MoleculeGraph(tuple(atoms), tuple(bonds))


def _refuse_uncodable(mol: Chem.Mol) -> None:
    atoms = list(mol.GetAtoms())
    if all(atom.GetAtomicNum() == 1 for atom in atoms):
        raise EncodeError("no heavy atoms")
    if (fragments := len(Chem.GetMolFrags(mol))) > 1:
        raise EncodeError(f"{fragments} fragments")
    for atom in atoms:
        if atom.GetNumRadicalElectrons():
            raise EncodeError("radical")
        if atom.GetAtomicNum() == 0 or atom.HasQuery():
            raise EncodeError("dummy atom")
        if atom.GetAtomicNum() == 1:
            raise EncodeError("explicit hydrogen")


def _bond(bond: Chem.Bond) -> tuple[int, int, int]:
    order = bond.GetBondType()
    if order not in _BOND_INDEX or bond.HasQuery():
        raise EncodeError(f"{'query' if bond.HasQuery() else str(order).lower()} bond")
    u, v = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
    return u, v, _BOND_INDEX[order]


def _smiles_or_none(mol: Chem.Mol) -> str | None:
    try:
        return canonical_smiles(mol)
    except ValueError:
        return None


def decode(atoms: Iterable[Atom], bonds: Iterable[tuple[int, int, int]]) -> Chem.Mol:
    """The molecule of a graph: unsanitised and possibly impossible, hydrogens left to valence.

    Args:
        atoms: (element symbol, formal charge) of each atom.
        bonds: (u, v, type) of each bond once, in either direction.

    Raises:
        RuntimeError: an unknown element, a bond of an atom with itself, or a bond given twice.
    """
    mol = Chem.RWMol()
    for element, charge in atoms:
        atom = Chem.Atom(element)
        atom.SetFormalCharge(charge)
        mol.AddAtom(atom)
    for u, v, kind in bonds:
        mol.AddBond(u, v, _BOND_ORDERS[kind])
    return mol.GetMol()


def align(one: MoleculeGraph, other: MoleculeGraph) -> list[int] | None:
    """Which atom of ``other`` takes the place of each of ``one``, so that all bonds coincide; None if none can.

    Atoms are not looked at.
    """
    if len(one.atoms) != len(other.atoms) or len(one.bonds) != len(other.bonds):
        return None
    skeletons = [decode([("*", 0)] * len(graph.atoms), graph.bonds) for graph in (one, other)]
    found = skeletons[1].GetSubstructMatch(skeletons[0])
    return list(found) if found else None
