"""Similarities by matrix product against RDKit's own, one pair at a time."""

import numpy as np
import pytest

pytest.importorskip("rdkit")
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from graphgen.metrics import tanimoto

SMILES = ["CCO", "c1ccccc1O", "CC(=O)N", "C", "OCC", "C1CCCCC1N", "CC#N", "O=C=O", "c1ccncc1"]


@pytest.fixture(scope="module")
def prints():
    make = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    return [make.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in SMILES]


@pytest.fixture(scope="module")
def packed(prints):
    return np.packbits(np.array([list(bits) for bits in prints], np.uint8), axis=1)


@pytest.fixture(params=[(2_048, 256), (4, 256), (2, 0)], ids=["one block", "blocks", "float32"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(tanimoto, "_ROWS", request.param[0])
    monkeypatch.setattr(tanimoto, "_EXACT", request.param[1])


def test_nearest(prints, packed, blocks):
    found = tanimoto.nearest(packed[:6], packed[5:])
    expected = [max(DataStructs.BulkTanimotoSimilarity(bits, prints[5:])) for bits in prints[:6]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[5] == 1
    with pytest.raises(ValueError, match="no reference"):
        tanimoto.nearest(packed, packed[:0])
    assert tanimoto.nearest(packed[:0], packed).shape == (0,)


def test_power_means(prints, packed, blocks):
    similarity = np.array([DataStructs.BulkTanimotoSimilarity(bits, prints) for bits in prints])
    found = tanimoto.power_means(packed, (1, 2))
    np.testing.assert_allclose(found, [similarity.mean(1), (similarity**2).mean(1)], rtol=1e-6)
