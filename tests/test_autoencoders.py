"""Both variational autoencoders from the data to the table: the command line, and their bonds for other models."""

import csv
import json
import sys
from itertools import product
from pathlib import Path

import pytest

import graphgen
from graphgen.cli.main import main
from graphgen.sampled import sampled

SMILES = ["".join(atoms) for size in (2, 3, 4) for atoms in product("CNO", repeat=size)]
SMALL = {
    "mpgvae": ("--hidden", "32", "--pair-hidden", "8", "--layers", "1", "--heads", "2"),
    "graph-vae": ("--hidden", "16", "--layers", "2", "--max-atoms", "4"),
}


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("autoencoders")
        patch.setenv("GRAPHGEN_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        (folder / "mine.smi").write_text("\n".join(SMILES) + "\n")

        def run(*arguments):
            patch.setattr(sys, "argv", ["graphgen", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                main()
            return stop.value.code

        training = ("--epochs", "12", "--batch-size", "32", "--lr", "0.01", "--latent", "4", "--kl-weight", "0.1")
        for name, small in SMALL.items():
            made = run("train", "-i", "mine.smi", "-m", name, "-o", name, *small, *training, "--kl-anneal-steps", "9")
            assert made == 0
        yield run


@pytest.mark.parametrize("name", SMALL)
def test_the_verbs(cli, name, capsys):
    assert cli("generate", name, "-n", "20", "-o", f"{name}.csv") == 0
    assert cli("generate", name, "-n", "20", "-o", "again.csv", "--batch-size", "3") == 0
    assert Path("again.csv").read_bytes() == Path(f"{name}.csv").read_bytes()
    assert cli("generate", name, "-n", "20", "-o", "warm.csv", "--temperature", "1") == 0
    assert Path("warm.csv").read_bytes() != Path(f"{name}.csv").read_bytes()
    assert cli("generate", name, "-n", "2", "-o", "no.csv", "--steps", "3") == 1
    assert "has no sampling option steps; it has temperature" in capsys.readouterr().err
    assert cli("likelihood", name, "-i", "mine.smi", "-o", "nll.csv", "--draws", "8") == 0
    with open("nll.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"8 draws"} and all(float(row["NLL"]) > 0 for row in rows)
    capsys.readouterr()
    assert cli("reconstruct", name, "--structures", "mine.smi") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["molecules"] == len(SMILES) and found["identical"] > 0 and found["largest_error"] is None
    assert cli("evaluate", f"{name}.csv", "--train", "mine.smi", "--model", name, "--json", "judged.json") == 0
    judged = json.loads(Path("judged.json").read_text())
    assert judged["rows"][0]["nats_per_atom"] and "W1 composition" in {m["name"] for m in judged["measures"]}


@pytest.mark.parametrize("name", SMALL)
def test_their_bonds_for_models_of_atoms(cli, name):
    skeletons = sampled(graphgen.load(name), 12, progress=False)
    assert len(skeletons) == 12 and all("." not in skeletons.smiles(k) for k in range(12))
    if not Path("atoms").exists():
        assert cli("train", "-i", "mine.smi", "-o", "atoms", "--hidden", "8", "--layers", "1", "--epochs", "1") == 0
    assert cli("generate", "atoms", "-n", "6", "-o", f"on-{name}.csv", "--structures", name, "--steps", "2") == 0
    with open(f"on-{name}.csv") as file:
        sizes = [len(row["atoms"].split()) for row in csv.DictReader(file)]
    expected = sampled(graphgen.load(name), 6, progress=False).sizes.tolist()
    assert sorted(sizes) == sorted(expected)
