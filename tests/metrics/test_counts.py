"""Shares over all attempts, counted by hand."""

import pytest

pytest.importorskip("rdkit")
from rdkit import Chem

from graphgen.metrics.counts import novelty, summary
from graphgen.metrics.strict import classify, failed
from graphgen.molecules.codec import canonical_smiles

TRAIN = ["CCO", "c1ccccc1", "CC(N)=O", "C#N"]


def test_hand_count():
    attempts = ["CCO", "OCC", "CCN", "NCC", "CCC", "C.C", "CN(=O)=O", "C[CH2]", "nonsense"]
    verdicts = [*map(classify, attempts), failed("diverged: at step 3")]
    got = summary(verdicts, {"CCO"})
    # valid: CCO twice, CCN twice, CCC; distinct: 3; new: CCN and CCC.
    assert got["n"] == 10
    assert got["V_strict"] == 5 / 10
    assert got["V_full"] == 8 / 10
    assert got["V_valence"] == 7 / 10
    assert got["VU"] == 3 / 10
    assert got["VUN"] == 2 / 10
    assert got["unique_of_valid"] == 3 / 5
    assert got["novel_of_unique"] == 2 / 3
    assert got["failures"] == {"fragments": 1, "valence": 1, "radical": 1, "not a SMILES": 1, "diverged": 1}


def test_nothing_valid():
    got = summary([failed("x")], set())
    assert (got["V_strict"], got["VU"], got["VUN"]) == (0, 0, 0)
    assert got["unique_of_valid"] is None and got["novel_of_unique"] is None


def test_no_attempts():
    with pytest.raises(ValueError, match="no attempts"):
        summary([], set())


def test_training_set_is_not_novel_to_itself():
    train = {canonical_smiles(Chem.MolFromSmiles(smiles)) for smiles in TRAIN}
    assert novelty(train, train) == 0
    assert novelty([*train, "CCC"], train) == 1 / 5
    assert novelty([], train) == 0


def test_shuffled_atoms_are_not_novel():
    train = {canonical_smiles(Chem.MolFromSmiles(smiles)) for smiles in TRAIN}
    shuffled = []
    for smiles in TRAIN:
        mol = Chem.MolFromSmiles(smiles)
        order = list(range(mol.GetNumAtoms()))[::-1]
        text = Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False)
        shuffled.append(classify(text))
    assert summary(shuffled, train)["VUN"] == 0
    assert summary(shuffled, train)["V_strict"] == 1
