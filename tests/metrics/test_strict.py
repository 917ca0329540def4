"""Validity: one example that breaks each rule, and nothing else."""

import pytest

pytest.importorskip("rdkit")
from rdkit import Chem

from graphgen.metrics.strict import Verdict, classify
from graphgen.molecules.codec import canonical_smiles, decode

VALID, FULL_ONLY, NOTHING = (True, True, True), (True, True, False), (False, False, False)


def levels(verdict: Verdict) -> tuple[bool, bool, bool]:
    return verdict.valence, verdict.full, verdict.strict


@pytest.mark.parametrize(
    ("smiles", "expected", "reason"),
    [
        ("CCO", VALID, None),
        ("C[N+](=O)[O-]", VALID, None),
        ("Oc1ccccc1", VALID, None),
        ("CC.O", FULL_ONLY, "fragments: 2"),
        ("C.C.C", FULL_ONLY, "fragments: 3"),
        ("C[CH2]", FULL_ONLY, "radical: on C"),
        ("C*", FULL_ONLY, "dummy atom"),
        ("C(C)(C)(C)(C)C", NOTHING, "valence"),
        ("FOF=C", NOTHING, "valence"),
        # RDKit's clean-up rewrites the charges of this one; the strict rule takes it as drawn.
        ("CN(=O)=O", (False, True, False), "valence"),
        # Every valence is fine, but no assignment of double bonds exists.
        ("c1cccc1", (True, False, False), "sanitising"),
        ("", NOTHING, "no atoms"),
        ("C1CC", NOTHING, "not a SMILES"),
        ("hello", NOTHING, "not a SMILES"),
        ("CC O", NOTHING, "not a SMILES"),
    ],
)
def test_each_rule(smiles, expected, reason):
    verdict = classify(smiles)
    assert levels(verdict) == expected
    assert verdict.reason == reason or verdict.reason.startswith(f"{reason}:")
    assert (verdict.smiles is not None) == verdict.full


def test_smiles_and_graph_agree_and_the_molecule_is_left_alone():
    mol = decode([("C", 0), ("O", 0), ("N", 1)], [(0, 1, 0), (0, 2, 1)])
    verdict = classify(mol)
    assert verdict == classify("OC=[NH2+]")
    assert verdict.strict
    assert mol.NeedsUpdatePropertyCache()


def test_overvalent_graph():
    mol = decode([("F", 0), ("C", 0)], [(0, 1, 1)])
    assert levels(classify(mol)) == NOTHING


def test_identity_ignores_stereo_isotopes_and_atom_order():
    mol = Chem.MolFromSmiles("C[C@H](N)C(=O)O")
    shuffled = Chem.RenumberAtoms(mol, [5, 2, 0, 4, 1, 3])
    assert classify(shuffled).smiles == classify("[13CH3]C(N)C(=O)O").smiles == canonical_smiles(mol)


def test_round_trip_is_asked(monkeypatch):
    # No molecule is known that RDKit cannot read back, so one is made up.
    monkeypatch.setattr("graphgen.metrics.strict.canonical_smiles", lambda mol: "OCC")
    verdict = classify("CCO")
    assert levels(verdict) == FULL_ONLY
    assert verdict.reason == "round trip"


def test_log_is_silent(capfd):
    for smiles in ("C(C)(C)(C)(C)C", "c1cccc1", "not", "CN(=O)=O"):
        classify(smiles)
    assert capfd.readouterr() == ("", "")
    assert Chem.MolFromSmiles("not") is None
    assert "SMILES Parse Error" in capfd.readouterr().err
