import csv
import gzip
import os
from pathlib import Path

import pytest
from rdkit import Chem

from graphgen.molecules.codec import EncodeError, canonical_smiles, decode, encode, encode_with_smiles, parse

needs_data = pytest.mark.skipif(not os.environ.get("GRAPHGEN_DATA"), reason="set GRAPHGEN_DATA")


def test_a_graph_has_charges_and_kekulised_bonds():
    graph = encode(Chem.MolFromSmiles("C[N+](=O)[O-]"))
    assert graph.atoms == (("C", 0), ("N", 1), ("O", 0), ("O", -1))
    assert graph.bonds == ((0, 1, 0), (1, 2, 1), (1, 3, 0))
    kinds = sorted(kind for *_, kind in encode(Chem.MolFromSmiles("c1ccccc1")).bonds)
    assert kinds == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("smiles", "identity"),
    [
        ("C[C@H](F)Cl", "CC(F)Cl"),
        ("F/C=C/F", "FC=CF"),
        ("[13CH3][CH3:7]", "CC"),
        ("[2H]C([2H])O", "CO"),
        ("[H]OC", "CO"),
        ("CN(=O)=O", "C[N+](=O)[O-]"),
        ("C1=CC=CN1", "c1cc[nH]c1"),
        ("[C-]#[O+]", "[C-]#[O+]"),
        ("[se]1cccc1", "c1cc[se]c1"),
    ],
)
def test_what_is_dropped_and_what_is_kept(smiles, identity):
    graph, found = encode_with_smiles(parse(smiles))
    assert found == identity
    assert canonical_smiles(decode(*graph)) == identity


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("", "empty"),
        ("*", "dummy atom"),
        ("C[CH2]", "radical"),
        ("C[O]", "radical"),
        ("[Na+].[Cl-]", "2 fragments"),
        ("[H][H]", "no heavy atoms"),
        ("C$C", "quadruple bond"),
        ("C~C", "query bond"),
        ("C->[Cu]", "dative bond"),
        ("[SH4]", "round trip"),
        ("CC(", "not a SMILES: syntax error"),
        ("c1cccc1", "cannot be sanitised: Can't kekulize"),
        ("C(C)(C)(C)(C)C", "cannot be sanitised: Explicit valence"),
        ("C C", "not a SMILES: character ' ' at position 2"),
        ("C\0C", "not a SMILES: character"),
        ("Cé", "not a SMILES: character"),
        ("C(" * 50_000 + "C" + ")" * 50_000, "too long"),
    ],
)
def test_what_has_no_graph_says_why(smiles, reason, capfd):
    with pytest.raises(EncodeError) as caught:
        encode(parse(smiles))
    assert caught.value.reason.startswith(reason)
    assert "\n" not in caught.value.reason and len(caught.value.reason) < 300
    assert capfd.readouterr() == ("", "")


def test_the_identity_does_not_depend_on_atom_order():
    mol = parse("CC(=O)Nc1ccc(O)cc1[N+](=O)[O-]")
    identity = canonical_smiles(mol)
    for root in range(mol.GetNumAtoms()):
        turned = parse(Chem.MolToSmiles(mol, rootedAtAtom=root, canonical=False))
        assert encode_with_smiles(turned)[1] == identity


def test_decode_neither_sanitises_nor_repairs():
    mol = decode([("C", 0)] + [("F", 0)] * 5, [(0, i, 0) for i in range(1, 6)])
    assert mol.GetNumBonds() == 5
    with pytest.raises(ValueError, match="valence"):
        canonical_smiles(mol)


def test_the_argument_is_left_as_it_is():
    mol = Chem.MolFromSmiles("[13CH3]c1ccccc1[C@H](F)Cl")
    before = mol.ToBinary()
    encode(mol)
    assert mol.ToBinary() == before


def _share_identical(rows):
    """Against RDKit's own stereo-free SMILES, not this codec's."""
    same = 0
    for smiles in rows:
        try:
            graph = encode(parse(smiles))
        except EncodeError:
            continue
        same += canonical_smiles(decode(*graph)) == Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)
    return same / len(rows)


@needs_data
def test_qm9_survives():
    with open(Path(os.environ["GRAPHGEN_DATA"]) / "qm9/qm9_gdb_order.csv") as file:
        rows = [row["smiles"] for row in csv.DictReader(file)][::20]
    assert len(rows) == 6_695 and _share_identical(rows) >= 0.999


@needs_data
def test_zinc250k_survives():
    with gzip.open(Path(os.environ["GRAPHGEN_DATA"]) / "zinc250k/zinc250k_csv_order.smi.gz", "rt") as file:
        rows = file.read().split()[::50]
    assert len(rows) == 4_990 and _share_identical(rows) >= 0.999
