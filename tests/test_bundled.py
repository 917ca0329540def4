"""The models that come with the package, as they are used straight after installation."""

import json

import pytest
import torch

import graphgen
from graphgen.models import checkpoint
from graphgen.trained import BUNDLED


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path_factory.getbasetemp() / "bundled-cache"))


def test_it_is_small_and_says_what_it_is():
    folder = BUNDLED / "qm9-cnf"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    card = (folder / "card.md").read_text()
    log = checkpoint.read_log(folder)
    assert log["data"]["sha256"] in card and f"seed {log['settings']['seed']}" in card
    best = min(log["epochs"], key=lambda row: row["nats"])
    assert f"{best['nats']:.3f}" in card


def test_it_generates_without_its_data_and_says_whose_bonds(monkeypatch):
    monkeypatch.delenv("GRAPHGEN_DATA", raising=False)
    model = graphgen.load("qm9-cnf")
    assert model.is_bundled
    structures, whose = model.skeletons()
    assert "NCI" in whose and "qm9 is not here" in whose
    assert int(structures.sizes.min()) >= 1 and int(structures.sizes.max()) <= 9
    made = model.generate(1000, steps=8, nll_draws=0, progress=False)
    valid = [smiles for smiles in made.smiles if smiles is not None]
    # The skeletons are more than drawn once, and were never trained on.
    assert len(valid) > 970 and len(structures) < 1000


def test_it_finds_its_own_test_split(qm9):
    model = graphgen.load("qm9-cnf")
    structures, whose = model.skeletons()
    assert whose == f"qm9, its test split ({len(structures):,} molecules)"
    found = model.likelihood(structures.take(torch.arange(500) * 27), draws=2, steps=8, progress=False)
    nats = -float(found.value.sum() / found.atoms.sum())
    assert nats < 0.45  # a look-up by bonds and their orders reaches 0.58
    assert int(found.evaluations[0]) == 2 * 8 * 4
    reported = json.loads((BUNDLED / "qm9-cnf" / "training.json").read_text())
    assert abs(nats - min(row["nats"] for row in reported["epochs"])) < 0.05
