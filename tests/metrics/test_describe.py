"""One pass over molecules: the same alone, in processes, from the cache and in any atom order."""

import numpy as np
import pytest

pytest.importorskip("rdkit")
from rdkit import Chem
from rdkit.Chem import QED, Crippen, Descriptors

from graphgen.metrics import describe as module
from graphgen.metrics.describe import Description, describe, keep, kept, place

SMILES = ["CCO", "c1ccccc1-c1ccccc1", "CC(=O)Nc1ccc(O)cc1", "C[N+](C)(C)C", "C1CC2CC1CC2", "nonsense", "C"]


def equal(a: Description, b: Description) -> bool:
    return all(np.array_equal(value, getattr(b, name)) for name, value in vars(a).items())


def test_by_hand():
    found = describe(SMILES)
    assert len(found) == 6 and found.failed == 1 and found.passes is None
    assert found.node_ptr.tolist() == [0, 3, 15, 26, 31, 38, 39]
    assert found.elements[:3].tolist() == [6, 6, 8]
    assert found.rings.tolist() == [0, 2, 1, 0, 2, 0]
    assert found.ring_sizes.tolist() == [6, 6, 6, 5, 5]
    assert found.scaffolds == {"c1ccc(-c2ccccc2)cc1": 1, "C1CC2CCC1C2": 1}
    assert found.fragments["[16*]c1ccc(O)cc1"] == 1
    bonds = found.bonds[found.bond_ptr[1] : found.bond_ptr[2], 2]
    assert np.bincount(bonds).tolist() == [1, 0, 0, 12]
    mol = Chem.MolFromSmiles(SMILES[2])
    expected = [Crippen.MolLogP(mol), QED.qed(mol), Descriptors.MolWt(mol)]
    np.testing.assert_allclose(found.properties[2, [0, 1, 3]], expected, rtol=1e-12)
    assert found.fingerprints.any(1).all()


def test_processes_find_the_same(monkeypatch):
    alone = describe(SMILES * 20)
    monkeypatch.setattr(module, "FEW", 60)
    assert equal(describe(SMILES * 20), alone)


def test_kept_for_the_next_time(tmp_path):
    path = place(SMILES, False, tmp_path)
    assert kept(path) is None
    keep(describe(SMILES), path)
    assert equal(kept(path), describe(SMILES))
    path.write_bytes(b"damaged")
    assert kept(path) is None and not path.exists()
    assert len({place(SMILES[:2], False, tmp_path), place(SMILES, True, tmp_path), path}) == 3
    keep(describe(["C"]), tmp_path / "file" / "x.npz")
    keep(describe(["C"]), tmp_path / "file" / "x.npz" / "cannot be a folder.npz")


def test_bonds_are_those_of_the_molecule():
    found = describe(["C=CC#N", "c1ccncc1"])
    assert found.bonds[:3].tolist() == [[0, 1, 1], [1, 2, 0], [2, 3, 2]]
    assert found.bonds[3:, 2].tolist() == [3] * 6
    assert {tuple(pair) for pair in found.bonds[3:, :2].tolist()} == {(0, 1), (0, 5), (1, 2), (2, 3), (3, 4), (4, 5)}


def test_atom_order_does_not_matter():
    kept = [smiles for smiles in SMILES if smiles != "nonsense"]
    shuffled = []
    for smiles in kept:
        mol = Chem.MolFromSmiles(smiles)
        order = np.random.default_rng(1).permutation(mol.GetNumAtoms()).tolist()
        shuffled.append(Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False))
    a, b = describe(kept), describe(shuffled)
    assert (a.fragments, a.scaffolds) == (b.fragments, b.scaffolds)
    assert np.array_equal(a.fingerprints, b.fingerprints)
    np.testing.assert_allclose(a.properties, b.properties, rtol=1e-9)


def test_no_molecules():
    assert len(describe([])) == 0
