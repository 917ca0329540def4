"""Whole molecules from the data to the table: generation, `graphgen.load` and the command line."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from rdkit import Chem

import graphgen
from graphgen import GraphgenError
from graphgen.candidates import Candidates
from graphgen.cli.main import main
from graphgen.compat.guacamol import Generator
from graphgen.follow import follow
from graphgen.generate import generate_whole
from graphgen.metrics.properties import mw
from graphgen.models import GraphDFM
from graphgen.molecules.codec import encode_scaffold
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.sampled import sampled

SMILES = ["CCO", "c1ccccc1O", "CC(=O)N", "C[N+](C)(C)C", "OCC#N", "CCCl", "CC(C)=O", "NCCO", "CCOC", "O=C=O", "CCN"]
SMALL = ("--hidden", "8", "--pair-hidden", "4", "--layers", "1", "--heads", "2")
CO = Vocabulary((("C", 0), ("O", 0)))


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole")
        patch.setenv("GRAPHGEN_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        (folder / "mine.smi").write_text("\n".join(SMILES * 3) + "\n")

        def run(*arguments):
            patch.setattr(sys, "argv", ["graphgen", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                main()
            return stop.value.code

        assert run("train", "-i", "mine.smi", "-m", "graph-dfm", "-o", "run", "--epochs", "2", *SMALL) == 0
        yield run


@pytest.fixture
def trained(cli):
    return graphgen.load("run")


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


class Recipe:
    """A model that makes given molecules in turn."""

    name, vocabulary = "recipe", CO

    def to(self, device):
        return self

    def eval(self):
        return self

    def sample(self, ids, seed):
        made = [MADE[int(i) % len(MADE)] for i in ids]
        sizes = torch.tensor([len(atoms) for atoms, _ in made])
        atoms = torch.tensor([label for atoms, _ in made for label in atoms])
        return CompleteGraphs(
            torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
            atoms,
            torch.tensor([kind for _, pairs in made for kind in pairs]),
        )


MADE = [
    ([0, 0, 1], [1, 0, 1]),  # CCO
    ([0, 0, 1], [1, 0, 0]),  # CC.O
    ([1, 0, 0], [3, 0, 0]),  # an oxygen of three bonds
    ([0], []),
]


def test_molecules_are_read_as_they_are_drawn():
    found = generate_whole(Recipe(), 6, batch_size=4, progress=False)
    assert found.smiles == ["CCO", "CC.O", None, "C", "CCO", "CC.O"]
    assert [reason is None for reason in found.reasons] == [text is not None for text in found.smiles]
    assert "valence" in found.reasons[2].lower()
    assert found.structures is None and found.node_ptr.diff().tolist() == [3, 3, 3, 1, 3, 3]
    assert found.columns["atoms"][:2] == ["C C O", "C C O"] and found.columns["SMILES_state"] == [1, 1, 0, 1, 2, 2]
    until = generate_whole(Recipe(), 6, batch_size=4, until_molecules=True, progress=False)
    assert sum(text is not None for text in until.smiles) == 6 and until.smiles[-1] is not None
    assert generate_whole(Recipe(), 2, start=3, progress=False).smiles == ["C", "CCO"]
    with pytest.raises(GraphgenError, match="a recipe has no sampling option steps"):
        generate_whole(Recipe(), 2, steps=3, progress=False)


def test_a_trained_model_needs_no_structures_and_takes_none(trained):
    assert isinstance(trained.network, GraphDFM) and trained.has_likelihood and not trained.has_marginals
    made = trained.generate(12, seed=1, steps=4, progress=False)
    again = trained.generate(12, seed=1, steps=4, batch_size=5, progress=False)
    assert len(made) == 12 and again.smiles == made.smiles and made.nll is None
    for asked in ({"structures": "test"}, {"candidates": Candidates(2)}):
        with pytest.raises(GraphgenError, match="leave out structures and candidates"):
            trained.generate(2, **asked)
    with pytest.raises(GraphgenError, match="no sampling option snr; it has steps, eta, temperature, distortion"):
        trained.generate(2, snr=1.0, progress=False)
    generator = Generator(trained)
    assert len([*generator.generate(3), *generator.generate(2)]) == 5
    ways = follow(trained.network, trained.data(), count=2)
    assert len(ways) == 2 and ways[0].bonds.shape[0] == 6


def test_the_command_line_trains_and_generates(cli, capsys):
    assert cli("generate", "run", "-n", "7", "-o", "out.csv", "--steps", "4", "--eta", "1") == 0
    assert "atoms and bonds are sampled" in capsys.readouterr().err
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and not {"structure", "NLL"} & rows[0].keys()
    assert all(bool(row["SMILES"]) != bool(row["reason"]) for row in rows)
    first = Path("out.csv").read_bytes()
    assert cli("generate", "--config", "out.csv.config.toml", "-o", "again.csv") == 0
    assert Path("again.csv").read_bytes() == first
    capsys.readouterr()
    for refused in (("--structures", "test"), ("--candidates", "2"), ("--reject",)):
        assert cli("generate", "run", "-n", "2", "-o", "no.csv", *refused) == 1
        assert "leave out --structures" in capsys.readouterr().err
    Path("others.smi").write_text("CCO\nCCBr\nCCCCCCCCCCCCO\nCCN\n")
    assert cli("likelihood", "run", "-i", "others.smi", "-o", "nll.csv", "--steps", "3") == 2
    with open("nll.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["SMILES"] for row in rows] == ["CCO", "CCN"] and all(float(row["NLL"]) > 0 for row in rows)
    assert rows[0]["method"] == "3 times, 4 draws" and rows[0]["evaluations"] == "12"
    rejects = Path("nll.csv.rejects.csv").read_text()
    assert "the model does not know: Br" in rejects and "size the model never makes: 13 atoms" in rejects
    for verb in (
        ("reconstruct", "run", "--structures", "train"),
        ("interpolate", "run", "CCO", "CCN", "-o", "way.svg"),
        ("optimize", "run", "--structures", "train", "-o", "better.csv"),
    ):
        assert cli(*verb) == 1
        assert "a graph-dfm has no latent space" in capsys.readouterr().err


def test_graph_nvp_is_trained_sampled_and_followed_by_the_same_verbs(cli, capsys):
    small = ("--hidden", "8", "--pair-hidden", "8", "--layers", "1", "--rounds", "1", "--order", "bfs")
    chosen = ("--coupling", "additive", "--noise", "0.6")
    assert cli("train", "-i", "mine.smi", "-m", "graph-nvp", "-o", "nvp", "--epochs", "1", *small, *chosen) == 0
    network = graphgen.load("nvp").network
    assert [network.settings[name] for name in ("order", "coupling", "noise")] == ["bfs", "additive", 0.6]
    for out, size in (("nvp.csv", "512"), ("again.csv", "3")):
        assert cli("generate", "nvp", "-n", "9", "-o", out, "--batch-size", size, "--temperature", "0.9") == 0
    assert Path("nvp.csv").read_bytes() == Path("again.csv").read_bytes()
    capsys.readouterr()
    assert cli("reconstruct", "nvp", "--structures", "train") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identical"] == found["molecules"] > 0 and found["largest_error"] < 1e-5
    assert cli("interpolate", "nvp", "CCO", "CC(=O)N", "-o", "way.svg", "--points", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CCO" and lines[3] == "CC(N)=O" and len(lines) == 4
    assert "<svg" in Path("way.svg").read_text()
    assert cli("likelihood", "nvp", "-i", "mine.smi", "-o", "nvp_nll.csv", "--draws", "2", "--orders", "2") == 2
    with open("nvp_nll.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["method"] == "2 draws" and all(float(row["NLL_orders"]) < 1e-3 for row in rows)
    assert cli("likelihood", "nvp", "-i", "mine.smi", "-o", "nvp_nll.csv", "--orders", "1") == 1
    assert cli("optimize", "nvp", "--structures", "train", "-o", "better.csv") == 1
    assert "no latent space of labels on given bonds" in capsys.readouterr().err


@pytest.mark.parametrize(
    "model, training, sampling",
    [
        ("graph-sde", ("--sde", "subvp"), ("--steps", "20", "--sampler", "euler", "--corrections", "1")),
        ("graph-ncsn", ("--levels", "5"), ("--steps", "2", "--epsilon", "0.005")),
        ("graph-ddpm", ("--chain", "30", "--schedule", "cosine"), ("--steps", "5", "--sampler", "ddim")),
    ],
)
def test_joint_noising_is_trained_and_sampled_by_the_same_verbs(cli, capsys, model, training, sampling):
    joint = ("-i", "mine.smi", "-m", model, "--structure", "joint", "--epochs", "1", *SMALL)
    assert cli("train", *joint, *training, "-o", model) == 0
    assert 'structure = "joint"' in (Path(model) / "config.toml").read_text()
    assert cli("generate", model, "-n", "5", "-o", f"{model}.csv", *sampling) == 0
    assert "atoms and bonds are sampled" in capsys.readouterr().err
    with open(f"{model}.csv") as file:
        assert len(list(csv.DictReader(file))) == 5
    assert cli("train", "--config", f"{model}/config.toml", "-o", f"{model}-again") == 0
    weights = [(Path(run) / "model.safetensors").read_bytes() for run in (model, f"{model}-again")]
    assert weights[0] == weights[1]
    assert len(follow(graphgen.load(model).network, None, count=2)) == 2
    capsys.readouterr()
    assert cli("generate", model, "-n", "5", "-o", "no.csv", "--distortion", "polydec") == 1
    assert f"a {model} has no sampling option distortion; it has steps" in capsys.readouterr().err
    assert cli("train", *joint[:4], "--structure", "bent", "-o", "no") == 1
    assert "structure 'bent': choose given or joint" in capsys.readouterr().err


@pytest.mark.parametrize("smiles", ["c1ccccc1", "CC(=O)N", "C[N+](C)(C)C", "C=O.CC"])
def test_molecules_are_made_around_a_scaffold(trained, smiles):
    trained.network.field.pair_out.bias.data[:4] += torch.tensor([5.0, 0.0, -5.0, -5.0])  # or valences are too many
    made = trained.generate(40, steps=4, scaffold=smiles, batch_size=16, progress=False)
    graph = encode_scaffold(smiles)
    query = Chem.MolFromSmiles(smiles)
    Chem.Kekulize(query, clearAromaticFlags=True)
    names = trained.vocabulary.names
    first = [names[trained.vocabulary.index(*atom)] for atom in graph.atoms]
    assert all(row.split()[: len(first)] == first for row in made.columns["atoms"])
    found = [molecule for molecule in made.mols if molecule is not None]
    assert len(found) >= 5
    for molecule in found:
        Chem.Kekulize(molecule, clearAromaticFlags=True)
        # Of a ring the other Kekulé form may be written.
        forms = [query, *Chem.ResonanceMolSupplier(query, Chem.KEKULE_ALL)]
        assert any(molecule.HasSubstructMatch(form) for form in forms)


def test_a_trained_model_learns_on(cli, capsys):
    Path("alcohols.smi").write_text("\n".join(["CCO", "CCCO", "OCCO", "CC(O)C", "CCBr", "C[Si](C)(C)C"] * 4) + "\n")
    on = ("train", "-i", "alcohols.smi", "--start", "run", "-o", "on", "--lr", "1e-5")
    assert cli(*on, "--epochs", "1") == 0
    assert "8 molecules left out, with atoms that the model of run does not know: Br, Si" in capsys.readouterr().err
    before, after = graphgen.load("run").network, graphgen.load("on").network
    assert after.settings == before.settings and after.vocabulary == before.vocabulary
    assert after.size_counts.nonzero().flatten().tolist() == [3, 4]  # of the new molecules
    moved = [float((a - b).abs().max()) for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-3
    assert cli("train", "--config", "on/config.toml", "-o", "on-again") == 0
    assert Path("on-again/model.safetensors").read_bytes() == Path("on/model.safetensors").read_bytes()
    assert cli("train", "-i", "mine.smi", "--start", "run", "-o", "no", "-m", "graph-dfm", "--pair-hidden", "8") == 1
    assert "--start run: its model is made already; leave out --model, --pair-hidden" in capsys.readouterr().err


def test_a_scaffold_that_cannot_be_is_one_line(cli, capsys):
    for smiles, message in (
        ("CC(", "scaffold 'CC(': not a SMILES"),
        ("C[Si]C", "scaffold 'C[Si]C': radical"),
        ("CBr", "scaffold: has atoms Br, which the model does not know"),
        ("C" * 9, "a scaffold of 9 atoms is larger than any training molecule (7 atoms at most)"),
    ):
        assert cli("generate", "run", "-n", "2", "-o", "no.csv", "--scaffold", smiles) == 1
        assert message in capsys.readouterr().err
    assert cli("generate", "run", "-n", "3", "-o", "amides.csv", "--scaffold", "CC(=O)N", "--steps", "3") == 0
    with open("amides.csv") as file:
        assert all(row["atoms"].startswith("C C O N") for row in csv.DictReader(file))
    before = Path("amides.csv").read_bytes()
    assert cli("generate", "--config", "amides.csv.config.toml") == 0 and Path("amides.csv").read_bytes() == before


def test_properties_are_learnt_and_asked_for(cli, capsys):
    train = ("train", "-i", "mine.smi", "-m", "graph-dfm", "--epochs", "1", *SMALL)
    assert cli(*train, "-o", "no", "--conditions", "qed,colour") == 1
    assert "property 'colour': there are qed, logp, sa, mw" in capsys.readouterr().err
    assert cli(*train, "-o", "asked", "--conditions", "mw,logp") == 0
    assert cli("train", "--config", "asked/config.toml", "-o", "again") == 0
    for name in ("asked", "again"):
        assert graphgen.load(name).network.settings["conditions"] == ["mw", "logp"]
    learnt = graphgen.load("asked").network.conditions
    train_split = graphgen.load("asked").data().split("train")
    weights = [mw(train_split.smiles(i)) for i in range(len(train_split))]
    assert float(learnt.mean[0]) == pytest.approx(sum(weights) / len(weights))
    capsys.readouterr()
    generate = ("generate", "asked", "-n", "20", "-o", "asked.csv", "--steps", "3")
    assert cli(*generate, "--condition", "mw=60,logp=0", "--guidance", "2") == 0
    printed = capsys.readouterr().out
    assert "mw" in printed and "logp" in printed and "60" in printed
    first = Path("asked.csv").read_bytes()
    assert cli("generate", "--config", "asked.csv.config.toml") == 0 and Path("asked.csv").read_bytes() == first
    for wrong, message in (
        (("--condition", "qed=0.9"), "condition qed: the model was not trained to be asked for it; it knows mw, logp"),
        (("--condition", "mw"), "condition 'mw': give values as in"),
        (("--condition", "tall=3"), "property 'tall': there are"),
        (("--guidance", "2"), "without a condition"),
    ):
        assert cli(*generate, *wrong) == 1
        assert message in capsys.readouterr().err
    assert cli("generate", "run", "-n", "2", "-o", "no.csv", "--condition", "mw=60") == 1
    assert "was trained without conditions" in capsys.readouterr().err


class Pieces:
    """A trained model that makes these SMILES in turn, as `graphgen.load` would give it."""

    folder = Path("pieces")

    def __init__(self, smiles, samples_bonds=True):
        self.smiles, self.network = smiles, type("Network", (), {"samples_bonds": samples_bonds, "name": "pieces"})

    def generate(self, n, seed, start, **_):
        return graphgen.Generated([self.smiles[(start + k) % len(self.smiles)] for k in range(n)], [None] * n)


def test_skeletons_are_the_whole_molecules_among_the_attempts():
    found = sampled(Pieces(["CCO", "C.C", None, "[CH2]C", "C1CC1N"]), 25)
    assert [found.smiles(k) for k in range(4)] == ["CCO", "NC1CC1", "CCO", "NC1CC1"] and len(found) == 25
    assert "pieces (in 61 attempts)" in found.name
    with pytest.raises(GraphgenError, match="makes no bonds"):
        sampled(Pieces(["C"], samples_bonds=False), 3)
    with pytest.raises(GraphgenError, match="whole molecules; train it longer"):
        sampled(Pieces(["C.C"]), 1)


def test_atoms_are_sampled_on_sampled_bonds(cli, monkeypatch):
    """An untrained whole-molecule model makes next to no molecule of one piece, so it is asked for lone atoms."""
    monkeypatch.setattr(
        "graphgen.sampled.sampled", lambda model, n, seed, device: sampled(Pieces(["CCO", "CN"]), n, seed)
    )
    small = ("--hidden", "8", "--layers", "1", "--epochs", "1")
    assert cli("train", "-i", "mine.smi", "-o", "atoms", *small) == 0
    assert cli("generate", "atoms", "-n", "6", "-o", "six.csv", "--structures", "run", "--steps", "2") == 0
    with open("six.csv") as file:
        sizes = [len(row["atoms"].split()) for row in csv.DictReader(file)]
    assert sorted(sizes) == [2, 2, 2, 3, 3, 3]
    Path("chains.smi").write_text("".join(f"{'C' * k}O\n" for k in range(1, 30)))  # enough for a test split
    assert cli("evaluate", "six.csv", "--train", "chains.smi", "--json", "six.json") == 0
    assert len(json.loads(Path("six.json").read_text())["rows"]) == 1  # no controls: these bonds are nowhere
