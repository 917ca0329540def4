import pytest
import torch

from graphgen import GraphgenError
from graphgen.metrics import properties
from graphgen.molecules.codec import encode_with_smiles, parse
from graphgen.molecules.encoded import EncodedMolecules, Encoder

SMILES = ["CCO", "c1ccccc1", "CC(=O)N"]


@pytest.fixture
def data(tmp_path):
    encoder = Encoder()
    for text in SMILES:
        encoder.add(*encode_with_smiles(parse(text)))
    encoder.finish("three").save(tmp_path / "three.safetensors")
    return EncodedMolecules.open(tmp_path / "three.safetensors")


def test_properties_have_known_values():
    assert properties.mw("CCO") == pytest.approx(46.069, abs=1e-3)
    assert properties.logp("CCO") == pytest.approx(-0.0014, abs=1e-3)  # Wildman and Crippen's own sum of contributions
    assert 0 < properties.qed("CCO") < 1 and 1 <= properties.sa("CCO") < 3
    assert properties.measured(["CCO", "not a molecule"], progress=False).isnan().tolist() == [[False] * 4, [True] * 4]


def test_they_are_found_once_and_kept_and_views_share_them(data, tmp_path, monkeypatch):
    found = properties.with_properties(data, ["mw", "qed"], tmp_path, progress=False)
    assert found.properties == ("mw", "qed")
    expected = torch.tensor([[properties.mw(text), properties.qed(text)] for text in SMILES], dtype=torch.float64)
    assert torch.equal(found.property_values(), expected)
    monkeypatch.setattr(properties, "measured", lambda *_: pytest.fail("found again"))
    view = properties.with_properties(data.take([2, 0]), ["qed"], tmp_path, progress=False)
    assert torch.equal(view.property_values(), expected[[2, 0], 1:])
    assert torch.equal(view.batch([1]).properties, expected[[0], 1:])
    assert view.take([1]).relabelled(data.vocabulary).properties == ("qed",)
    with pytest.raises(GraphgenError, match="property 'colour': there are qed, logp, sa, mw"):
        properties.with_properties(data, ["colour"], tmp_path)
    with pytest.raises(GraphgenError, match="twice"):
        properties.with_properties(data, ["mw", "mw"], tmp_path)


def test_what_is_kept_needs_no_rdkit_to_train_from(data, tmp_path, run_python):
    properties.with_properties(data, ["mw"], tmp_path, progress=False)
    program = f"""
import sys
sys.modules["rdkit"] = None
from pathlib import Path
from graphgen.metrics.properties import with_properties
from graphgen.models import GraphDFM
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.train import TrainSettings, train
folder = Path({str(tmp_path)!r})
data = with_properties(EncodedMolecules.open(folder / "three.safetensors"), ["mw"], folder)
model = GraphDFM(data.vocabulary, hidden=8, pair_hidden=4, layers=1, heads=2, conditions=["mw"])
train(model, data, folder / "run", TrainSettings(epochs=1), progress=False)
"""
    found = run_python(program)
    assert found.returncode == 0, found.stderr


def test_asked_values_are_read():
    assert properties.asked("qed=0.9, logp=-2") == {"qed": 0.9, "logp": -2.0}
    for text in ("qed", "qed=high", "qed=0.9;logp=2"):
        with pytest.raises(GraphgenError, match="give values as in qed=0.9,logp=2"):
            properties.asked(text)


def test_achieved_counts_what_is_near():
    values = torch.tensor([1.0, 2.0, 3.0, float("nan")], dtype=torch.float64)
    found = properties.Achieved.of(values, 2.5, 0.5)
    assert found.molecules == 3 and found.mean == 2.0 and found.near == pytest.approx(2 / 3)
