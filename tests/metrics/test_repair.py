"""Repair by its rule, one example of each clause, and what it may not do."""

import pytest

pytest.importorskip("rdkit")
from rdkit import Chem

from graphgen.metrics.repair import after_repair, repaired
from graphgen.metrics.strict import classify, failed
from graphgen.molecules.codec import canonical_smiles, decode


def mend(molecule):
    return repaired(molecule, classify(molecule))


@pytest.mark.parametrize(
    ("smiles", "after", "lost"),
    [
        (
            "CC(C)(C)(C)C",
            "CC(C)(C)C",
            1,
        ),  # a single bond of the first atom beyond its valence goes, and what hung on it
        ("CC(=O)(C)C", "CC(C)(C)O", 0),  # the highest bond is lowered first
        ("CC(#N)=O", "CC(=N)O", 0),  # and again, while there is need
        ("FC#C", "C#CF", 0),
        ("CCC.O", "CCC", 1),
        ("CO.CN", "CO", 2),  # the first of equal fragments
        ("CN(=O)=O", "CN(O)O", 0),  # no charge is added
        ("c1ccccc1.C", "c1ccccc1", 1),
        ("FC(F)(F)(F)c1ccccc1", "FC(F)(F)c1ccccc1", 1),
    ],
)
def test_the_rule(smiles, after, lost):
    found = mend(smiles)
    if smiles == "FC#C":
        assert not found.changed
    else:
        assert found.changed and found.lost == lost
    assert found.verdict.strict and found.verdict.smiles == canonical_smiles(Chem.MolFromSmiles(after))


@pytest.mark.parametrize("smiles", ["c1cccc1", "C[CH2]", "*C"])
def test_what_the_rule_does_not_reach_stays_invalid(smiles):
    found = mend(smiles)
    assert not found.changed and not found.verdict.strict


@pytest.mark.parametrize("smiles", ["nonsense", ""])
def test_what_is_no_molecule_stays_none(smiles):
    assert mend(smiles)[1:] == (False, 0, 0)


def test_graphs_are_left_as_they_are():
    mol = decode([("C", 0), ("F", 0), ("O", 1)], [(0, 1, 1), (0, 2, 0)])
    before = Chem.MolToSmiles(mol)
    assert mend(mol).verdict.smiles == canonical_smiles(Chem.MolFromSmiles("FC[OH2+]"))
    assert Chem.MolToSmiles(mol) == before


def test_valid_molecules_do_not_change():
    """On data, with repair and without it are the same."""
    for smiles in ("CCO", "c1ccccc1", "C[N+](=O)[O-]", "CS(C)(=O)=O", "FP(F)(F)(F)F"):
        found = mend(smiles)
        assert found.verdict == classify(smiles) and not found.changed


def test_shares_are_of_all_attempts():
    attempts = [mend(text) for text in ("CCO", "CCO.C", "CCC.O", "c1cccc1")] + [repaired("", failed("gave up"))]
    got = after_repair(attempts, {"CCC"})
    assert (got["n"], got["V_strict"], got["VU"], got["VUN"], got["changed"]) == (5, 3 / 5, 2 / 5, 1 / 5, 2 / 5)
    assert got["atoms_lost"] == 2 / (3 + 4 + 4 + 5)
    with pytest.raises(ValueError, match="no attempts"):
        after_repair([], set())
