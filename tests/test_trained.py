"""`graphgen.load`, as a script or a notebook uses it."""

import pytest
import torch

import graphgen
from graphgen import GraphgenError
from graphgen.compat.guacamol import Generator
from graphgen.likelihood import in_vocabulary
from graphgen.models import GraphCNF
from graphgen.molecules import datasets
from graphgen.train import TrainSettings, train

SMILES = ["CCO", "c1ccccc1O", "CC(=O)N", "C[N+](C)(C)C", "OCC#N", "CCCl", "CC(C)=O", "NCCO", "CCOC", "O=C=O", "CCN"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHGEN_CACHE", str(folder / "cache"))
        (folder / "mine.smi").write_text("\n".join(SMILES) + "\n")
        data = datasets.load(folder / "mine.smi", progress=False)
        torch.manual_seed(0)
        model = GraphCNF(data.vocabulary, hidden=8, layers=1)
        train(model, data, folder / "run", TrainSettings(epochs=2, batch_size=8), progress=False)
        yield folder


def test_import_is_light(run_python):
    heavy = "rdkit", "rich", "typer", "pooch", "jinja2", "safetensors", "pandas"
    found = run_python(
        f"import graphgen, sys; print([m for m in {heavy} if m in sys.modules], callable(graphgen.load))"
    )
    assert found.stdout.strip() == "[] True", found.stderr
    with pytest.raises(AttributeError, match="nonsense"):
        _ = graphgen.nonsense


def test_generate_finds_the_bonds_itself(home):
    model = graphgen.load(home / "run")
    assert "mine" in repr(model) and isinstance(model, graphgen.TrainedModel)
    made = model.generate(12, seed=1, structures="train", steps=3, progress=False)
    assert isinstance(made, graphgen.Generated) and len(made) == 12
    again = model.generate(12, seed=1, structures="train", steps=3, batch_size=5, progress=False)
    assert again.smiles == made.smiles and torch.equal(again.nll, made.nll)
    assert bool((made.nll > 0).all()) and bool((made.nll_stderr > 0).all())
    assert model.generate(3, structures="train", nll_draws=0, progress=False).nll is None


def test_bonds_from_elsewhere(home, monkeypatch, tmp_path):
    model = graphgen.load(home / "run")
    (tmp_path / "rings.smi").write_text("c1ccccc1\nC1CCCCC1\n" * 4)
    made = model.generate(2, structures=f"{tmp_path / 'rings.smi'}:train", steps=2, progress=False)
    assert made.node_ptr.diff().tolist() == [6, 6]
    given = model.data().split("train")
    assert model.generate(2, structures=given, steps=2, progress=False).structures.max() < len(given)
    with pytest.raises(GraphgenError, match="all: no such file, and no data set"):
        model.skeletons("all")
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path))
    with pytest.raises(GraphgenError, match="was trained on mine .* not here"):
        model.generate(2)


def test_until_molecules_counts_molecules(home):
    model = graphgen.load(home / "run")
    made = model.generate(5, structures="train", steps=3, until_molecules=True, batch_size=2, progress=False)
    assert sum(text is not None for text in made.smiles) == 5 and made.smiles[-1] is not None
    assert made.smiles == model.generate(len(made), structures="train", steps=3, progress=False).smiles


def test_until_molecules_ends(home, monkeypatch):
    monkeypatch.setattr(
        "graphgen.molecules.codec.canonical_smiles", lambda mol: (_ for _ in ()).throw(ValueError("no"))
    )
    model = graphgen.load(home / "run")
    with pytest.raises(GraphgenError, match=r"only 0 of 200 attempts gave a molecule \(the last failed with: no\)"):
        model.generate(2, structures="train", steps=1, nll_draws=0, until_molecules=True, progress=False)


def test_likelihood_of_molecules_encoded_elsewhere(home, tmp_path):
    model = graphgen.load(home / "run")
    (tmp_path / "theirs.smi").write_text("OO\nCC[Si]\nC[SiH3]\nCCO\n")
    theirs = datasets.load(tmp_path / "theirs.smi", progress=False)
    assert theirs.vocabulary != model.vocabulary
    with pytest.raises(GraphgenError, match="has atoms Si"):
        model.likelihood(theirs, progress=False)
    known, others = in_vocabulary(theirs, model.vocabulary)
    assert [known.smiles(i) for i in range(len(known))] == ["OO", "CCO"] and others == {1: "Si"}
    found = model.likelihood(known, draws=16, steps=4, progress=False)
    # The same molecule in the model's own data; other rows draw other noise.
    own = model.data()
    row = next(i for i in range(len(own)) if own.smiles(i) == "CCO")
    expected = model.network.log_prob(own.batch([row]), 5, samples=16, method="rk4", steps=4)
    difference = float(found.value[1] - expected.value[0].detach())
    assert abs(difference) < 4 * float(found.stderr[1] + expected.stderr[0])


def test_guacamol_gets_new_molecules_every_time(home):
    model = graphgen.load(home / "run")
    generator = Generator(model, structures="train")
    first, second = generator.generate(4), generator.generate(6)
    assert [*first, *second] == [text or "" for text in model.generate(10, structures="train", progress=False).smiles]
    assert all(isinstance(text, str) for text in first)
