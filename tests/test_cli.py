"""The command line as a user meets it: what it writes, what it says, how it exits."""

import csv
import gzip
import json
import re
import sys
import tomllib

import pytest

from graphgen.cli.main import main


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["graphgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


GOOD = ["CCO", "c1ccccc1O", "CC(=O)N", "C[N+](C)(C)C", "OCC#N", "CCCl", "CC(C)=O", "NCCO", "CCOC", "O=C=O"] * 3
BAD = {4: "not_a_molecule", 9: "C1CC", 15: "CC.O", 20: "[CH2]C"}


@pytest.fixture
def mixed(tmp_path):
    lines = list(GOOD)
    for at, text in sorted(BAD.items()):
        lines.insert(at, text)
    path = tmp_path / "mixed.smi"
    path.write_text("".join(f"{line} m{i}\n" for i, line in enumerate(lines)))
    return path, lines


def test_malformed_rows_are_listed_and_lose_nothing(cli, mixed, tmp_path):
    path, lines = mixed
    code, out, err = cli("data", path, "-o", "clean.csv")
    assert code == 2
    with open(tmp_path / "clean.csv") as file:
        assert len(list(csv.DictReader(file))) == len(GOOD)
    with open(tmp_path / "clean.csv.rejects.csv") as file:
        rejects = list(csv.DictReader(file))
    where = [f"mixed.smi:{i + 1}" for i, line in enumerate(lines) if line in BAD.values()]
    assert [row["where"].rpartition("/")[2] for row in rejects] == where
    assert all(row["reason"] for row in rejects)
    assert "rows read" in out and "4 rows rejected" in err


def test_training_on_malformed_rows_goes_on_and_generates(cli, mixed, tmp_path):
    path, _ = mixed
    code, _, err = cli("train", "-i", path, "-o", "run", "--epochs", "2", "--hidden", "8", "--layers", "1")
    assert code == 2 and "model in run" in err
    assert (tmp_path / "run.rejects.csv").exists()
    code, out, err = cli("generate", "run", "-n", "7", "--structures", f"{path}:train", "-o", "out.csv")
    assert code == 2 and out == "" and "7 attempts" in err
    with open(tmp_path / "out.csv") as file:
        assert len(list(csv.DictReader(file))) == 7
    code, out, err = cli(
        "evaluate",
        "out.csv",
        "--train",
        path,
        "--structures",
        "train",
        "--model",
        "run",
        "-o",
        "r.html",
        "--json",
        "m.json",
    )
    assert code == 0 and "look-up" in out and "V_strict" in out
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert numbers["rows"][0]["n"] == 7 and numbers["rows"][0]["nats_per_atom"] > 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") >= 2 and not re.search(r"(src|href)=.http", page)


def read(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(cli, mixed, tmp_path):
    """A tiny model, trained on a file."""
    assert cli("train", "-i", mixed[0], "-o", "run", "--epochs", "1", "--hidden", "8", "--layers", "1")[0] == 2
    return tmp_path / "run"


def test_a_model_of_a_file_finds_its_bonds_again_or_says_so(cli, run, tmp_path, monkeypatch):
    (tmp_path / "mixed.smi").unlink()  # what was encoded is enough
    code, _, err = cli("generate", "run", "-n", "3", "-o", "out.csv", "--structures", "train")
    assert code == 0 and "3 rows in out.csv" in err
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "empty"))
    code, _, err = cli("generate", "run", "-o", "out.csv")
    assert code == 1 and "was trained on mixed" in err and "name the data set or the file" in err


def test_tables_have_n_attempts_and_lists_n_molecules(cli, run, tmp_path):
    generate = ("generate", "run", "--structures", "train", "--seed", "3", "--steps", "4")
    assert cli(*generate, "-n", "40", "-o", "out.csv")[0] == 0
    rows = read(tmp_path / "out.csv")
    assert len(rows) == 40 and {row["SMILES_state"] for row in rows} <= {"0", "1", "2"}
    assert [float(row["NLL"]) > 0 and float(row["NLL_stderr"]) > 0 for row in rows] == [True] * 40
    assert all(bool(row["SMILES"]) == (row["SMILES_state"] != "0") == (not row["reason"]) for row in rows)
    for name in ("out.smi", "out.smi.gz", "out.sdf"):
        code, _, err = cli(*generate, "-n", "6", "-o", name)
        attempts, molecules, failures = map(int, re.search(r"(\d+) attempts, (\d+) mol\w+, (\d+) fail", err).groups())
        assert code == 0 and molecules == 6 and attempts == molecules + failures
    made = [row["SMILES"] for row in rows if row["SMILES"]]
    listed = [line.split()[0] for line in (tmp_path / "out.smi").read_text().splitlines()]
    assert len(listed) == 6 and listed[: len(made)] == made[:6]
    assert gzip.decompress((tmp_path / "out.smi.gz").read_bytes()) == (tmp_path / "out.smi").read_bytes()
    assert (tmp_path / "out.sdf").read_text().count("$$$$") == 6


def test_the_configuration_beside_an_output_makes_it_again(cli, run, tmp_path):
    options = ("-n", "5", "--structures", "train", "--steps", "3", "--nll-draws", "0", "--seed", "9")
    assert cli("generate", "run", *options, "-o", "out.csv")[0] == 0
    written = tomllib.loads((tmp_path / "out.csv.config.toml").read_text())
    assert written["seed"] == 9 and written["batch-size"] == 512 and written["model"] == "run"
    assert set(written["about"]) >= {"verb", "graphgen", "torch", "rdkit", "data", "data-sha256", "model-sha256"}
    assert "NLL" not in read(tmp_path / "out.csv")[0]
    assert cli("generate", "--config", "out.csv.config.toml", "-o", "again.csv")[0] == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    assert cli("generate", "--config", "out.csv.config.toml", "-o", "other.csv", "-n", "2", "--seed", "1")[0] == 0
    assert len(read(tmp_path / "other.csv")) == 2

    # Only a comment and the table `about` may differ.
    assert cli("train", "--config", "run/config.toml", "-o", "twin")[0] == 2
    assert (tmp_path / "twin" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "content, words",
    [
        ("epoch = 3", "did you mean 'epochs'"),
        ("input = [1]", "input must be one number or text"),
        ("resume = 1", "resume must be true or false"),
        ("epochs = true", "epochs must be one number"),
        ('input = "nci"\nout = "x"\nepochs = 2.5', "'--epochs'"),
        ("epochs = ", "not TOML"),
        ('[about]\nverb = "generate"', "is of `graphgen generate`"),
        ('epochs = 3\nout = "x"', "--input"),
        ('input = "nowhere.smi"\nout = "x"', "nowhere.smi"),
    ],
)
def test_a_wrong_configuration_is_one_line(cli, tmp_path, content, words):
    (tmp_path / "x.toml").write_text(content + "\n")
    code, _, err = cli("train", "--config", "x.toml")
    assert code == 1 and words in err and sum("error:" in line for line in err.splitlines()) == 1
    code, _, err = cli("train", "--config", "none.toml")
    assert code == 1 and "none.toml" in err


def test_the_configuration_may_use_underscores(cli, tmp_path, mixed):
    (tmp_path / "x.toml").write_text(f'input = "{mixed[0]}"\nout = "run"\nbatch_size = 7\nepochs = 1\nhidden = 8\n')
    assert cli("train", "--config", "x.toml", "--layers", "1")[0] == 2
    assert json.loads((tmp_path / "run" / "training.json").read_text())["settings"]["batch_size"] == 7


def test_likelihood_of_every_molecule_with_its_error(cli, run, tmp_path):
    (tmp_path / "theirs.smi").write_text("CCO ethanol\nbad\nC[Si](C)(C)C silane\nCC(=O)N amide\n")
    code, _, err = cli("likelihood", "run", "-i", "theirs.smi", "-o", "nll.csv", "--steps", "4", "--draws", "3")
    assert code == 2 and "2 molecules" in err
    rows = read(tmp_path / "nll.csv")
    assert [(row["SMILES"], row["name"], row["where"]) for row in rows] == [
        ("CCO", "ethanol", "theirs.smi:1"),
        ("CC(N)=O", "amide", "theirs.smi:4"),
    ]
    assert all(float(row["NLL"]) > 0 and float(row["NLL_stderr"]) > 0 for row in rows)
    rejects = {row["where"]: row["reason"] for row in read(tmp_path / "nll.csv.rejects.csv")}
    assert rejects.keys() == {"theirs.smi:2", "theirs.smi:3"} and rejects["theirs.smi:3"].endswith("Si")
    assert (tmp_path / "nll.csv.config.toml").exists()


def test_inspect(cli, run, tmp_path):
    code, out, _ = cli("inspect", "run")
    assert code == 0 and "graph-cnf" in out and "mixed" in out and "epoch" in out
    code, out, _ = cli("inspect", "run", "--json")
    found = json.loads(out)
    assert found["settings"]["hidden"] == 8 and len(found["training"]["epochs"]) == 1 and found["parameters"] > 100
    (run / "training.json").unlink()
    code, out, err = cli("inspect", "run")
    assert code == 0 and "no training log" in err


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda run: (run / "model.json").unlink(), "no finished model"),
        (lambda run: (run / "model.json").write_text("{"), "damaged"),
        (lambda run: (run / "model.json").write_text('{"format": 1}'), "None"),
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors"),
        (lambda run: (run / "training.json").write_text("{}"), ""),
        (lambda run: (run / "training.json").write_text('{"data": 3, "epochs": 1}'), "not a training log"),
        (lambda run: [path.unlink() for path in run.iterdir()], "no finished model"),
        (lambda run: [path.unlink() for path in run.iterdir() if path.name != "config.toml"], "no model here"),
    ],
)
def test_inspect_of_what_is_no_model_is_one_line(cli, run, damage, words):
    damage(run)
    code, out, err = cli("inspect", "run")
    assert "Traceback" not in out + err and words in err
    if words:
        assert code == 1 and len(err.strip().splitlines()) == 1
    for name in ("nowhere", "mixed.smi"):
        code, _, err = cli("inspect", name)
        assert code == 1 and name in err and len(err.strip().splitlines()) == 1


def test_bench_runs_the_scripts(cli, tmp_path):
    code, _, _ = cli("bench", "noise", "--quick", "--only", "rademacher", "--rounds", "1", "--json", "numbers")
    assert code == 0
    assert json.loads((tmp_path / "numbers" / "bench_noise.json").read_text())["cases"][0]["ratio"]
    code, _, err = cli("bench", "speed")
    assert code == 1 and "message_passing" in err


def test_data_writes_what_it_is_asked_for(cli, mixed, tmp_path):
    path, _ = mixed
    for name in ("clean.csv", "clean.csv.gz", "clean.smi", "clean.sdf"):
        assert cli("data", path, "-o", name)[0] == 2 and (tmp_path / f"{name}.config.toml").exists()
    assert read(tmp_path / "clean.csv.gz") == read(tmp_path / "clean.csv")
    assert set(read(tmp_path / "clean.csv")[0]) == {"row", "smiles", "split"}
    assert cli("data", "clean.sdf", "--column", "x")[0] == 1
    code, out, _ = cli("data", "clean.sdf")
    assert code == 0 and f"{len(GOOD)}" in out
    code, _, err = cli("data", path, "-o", "clean.xyz")
    assert code == 1 and ".parquet" in err
    code, _, err = cli("data", "moses-filters")
    assert code == 1 and "--download" in err


def test_evaluate_takes_a_column(cli, mixed, tmp_path):
    (tmp_path / "theirs.csv").write_text("structure_smiles,note\nCCO,1\nCCN,2\n,3\n")
    evaluate = ("evaluate", "theirs.csv", "--train", mixed[0], "--structures", "train", "--json", "m.json")
    code, _, err = cli(*evaluate)
    assert code == 1 and "structure_smiles" in err
    assert cli(*evaluate, "--generated-column", "structure_smiles")[0] == 0
    assert json.loads((tmp_path / "m.json").read_text())["rows"][0]["n"] == 3
    assert (tmp_path / "m.json.config.toml").exists()


def test_resume(cli, mixed):
    path, _ = mixed
    train = ("train", "-i", path, "-o", "run", "--epochs", "1", "--hidden", "8", "--layers", "1")
    assert cli(*train)[0] == 2
    code, _, err = cli(*train)
    assert code == 1 and "--resume" in err
    assert cli(*train, "--resume")[0] == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("data", "nowhere.smi"), "nowhere.smi"),
        (("data", "empty.smi"), "empty"),
        (("data", "table.csv", "--column", "nonsense"), "nonsense"),
        (("train", "-i", "nci", "-o", "x", "-m", "graph-xyz"), "graph-xyz"),
        (("train", "-i", "nci", "-o", "x", "--objective", "luck"), "luck"),
        (("train", "-i", "nci", "-o", "x", "--epochs", "0"), "epochs"),
        (("train", "-i", "nci", "-o", "x", "--device", "warp:9"), "warp:9"),
        (("train", "-i", "nci"), "--out"),
        (("generate", "nowhere", "-o", "out.csv"), "nowhere"),
        (("generate", "nowhere", "-o", "out.txt"), ".csv"),
        (("generate", "nowhere", "-o", "out.csv", "-n", "many"), "-n"),
        (("generate", "nowhere", "-o", "out.csv", "-n", "0"), "-n must be above 0"),
        (("generate", "nowhere", "-o", "out.csv", "--nll-draws", "-1"), "--nll-draws"),
        (("likelihood", "nowhere", "-i", "nci", "-o", "out.csv"), "nowhere"),
        (("likelihood", "nowhere", "-i", "nci", "-o", "out.smi"), ".csv"),
        (("likelihood", "nowhere", "-i", "nci", "-o", "out.csv", "--draws", "0"), "--draws"),
        (("evaluate", "nowhere.csv", "--train", "nci"), "nowhere.csv"),
        (("evaluate", "table.csv", "--train", "nci", "--structures", "nci:middle"), "nci:middle: no such file"),
        (("explode",), "explode"),
    ],
)
def test_errors_are_one_line_and_exit_1(cli, tmp_path, arguments, words):
    (tmp_path / "empty.smi").write_text("")
    (tmp_path / "table.csv").write_text("smiles,name\nCCO,a\n")
    code, out, err = cli(*arguments)
    lines = [line for line in err.splitlines() if "error:" in line]
    assert code == 1 and len(lines) == 1 and words in lines[0]
    assert "Traceback" not in out + err


def test_a_damaged_checkpoint_is_one_line(cli, mixed, tmp_path):
    path, _ = mixed
    cli("train", "-i", path, "-o", "run", "--epochs", "1", "--hidden", "8", "--layers", "1")
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:64])
    code, out, err = cli("generate", "run", "-o", "out.csv", "--structures", "nci")
    assert code == 1 and "model.safetensors" in err and "Traceback" not in out + err
    assert not (tmp_path / "out.csv").exists()


def test_demo(cli, tmp_path):
    code, out, err = cli("demo", "--epochs", "1", "-o", "d")
    assert code == 0 and "generated" in out and "look-up" in out and "report.html" in err
    assert {path.name for path in (tmp_path / "d").iterdir()} == {
        "generated.csv",
        "metrics.json",
        "model",
        "report.html",
    }
    page = (tmp_path / "d" / "report.html").read_text()
    assert page.count("<svg") >= 20


def test_doctor(cli):
    code, out, _ = cli("doctor")
    assert code == 0 and "kernels agree" in out
    for word in ("torch", "CUDA kernels", "CUDA device", "threads", "extra", "qm9", "cache"):
        assert word in out


def test_doctor_finds_a_kernel_that_is_wrong(cli, monkeypatch):
    from graphgen import ops

    monkeypatch.setattr(ops, "softmax", lambda x: x)
    code, out, _ = cli("doctor")
    assert code == 1 and "FAILED: softmax" in out


def test_interrupt_exits_130(cli, monkeypatch):
    import graphgen.cli.doctor as verb

    def stopped(device):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "_self_test", stopped)
    code, out, err = cli("doctor")
    assert code == 130 and "interrupted" in err and "Traceback" not in out + err


def test_version(cli):
    import graphgen

    assert cli("--version") == (0, f"graphgen {graphgen.__version__}\n", "")


def test_help_has_examples(cli):
    for verb in (
        "reconstruct",
        "interpolate",
        "optimize",
        "demo",
        "train",
        "generate",
        "evaluate",
        "likelihood",
        "inspect",
        "data",
        "bench",
        "doctor",
    ):
        code, out, _ = cli(verb, "--help")
        assert code == 0 and re.search(rf"Examples?:\s+graphgen {verb}", out)


def test_candidates_rejected_are_counted(cli, run, tmp_path):
    options = ("-n", "8", "--structures", "train", "--steps", "3", "--candidates", "3", "--reject")
    code, _, err = cli("generate", "run", *options, "-o", "out.csv")
    assert code == 0 and "of 24 candidates accepted" in err
    rows = read(tmp_path / "out.csv")
    share = sum(int(row["accepted"]) for row in rows) / 24
    assert f"{100 * share:.2f} % of 24" in err


def test_evaluation_knows_whose_bonds_a_file_was_given(cli, run, mixed, tmp_path):
    (tmp_path / "rings.smi").write_text("Oc1ccccc1\nCCO\nNCCO\n" * 3)
    assert cli("generate", "run", "-n", "9", "--structures", "rings.smi", "-o", "out.csv", "--steps", "3")[0] == 0
    code, _, err = cli("evaluate", "out.csv", "--train", mixed[0], "--json", "m.json")
    assert code == 0, err
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["settings"]["structures"] == "rings.smi" and len(found["rows"]) == 6
    (tmp_path / "out.csv.config.toml").unlink()
    code, _, err = cli("evaluate", "out.csv", "--train", mixed[0], "--structures", "train")
    assert code == 1 and "--structures none" in err
    (tmp_path / "chains.smi").write_text("".join(f"{'C' * k}O\n" for k in range(1, 30)))  # enough for a test split
    code, out, _ = cli("evaluate", "out.csv", "--train", "chains.smi", "--structures", "none")
    assert code == 0 and "look-up" not in out


def test_the_latent_verbs(cli, run, tmp_path):
    code, out, err = cli("reconstruct", "run", "--structures", "train")
    found = json.loads(out)
    assert code == 0 and found["identical"] == found["molecules"] > 0 and "come back" in err
    code, out, _ = cli("interpolate", "run", "CCO", "NCC", "-o", "way.svg", "--points", "5")
    assert (
        code == 0
        and out.splitlines()[0] == "CCO"
        and out.splitlines()[-1] in ("CCN", "NCC")
        and len(out.splitlines()) == 5
    )
    assert (tmp_path / "way.svg").read_text().count("class='bond-1 ") >= 5  # two bonds a molecule
    code, _, err = cli("interpolate", "run", "CCO", "CC=O", "-o", "way.svg")
    assert code == 1 and "do not have the same bonds" in err
    options = ("-n", "4", "--structures", "train", "--property", "logp")
    code, _, err = cli("optimize", "run", *options, "-o", "better.csv")
    assert code == 0 and "by chance" in err
    rows = read(tmp_path / "better.csv")
    assert len(rows) == 4 and all(float(row["value_after"]) >= float(row["value_before"]) for row in rows)
    assert (tmp_path / "better.csv.svg").read_text().count("class='bond-0 ") >= 8  # four, before and after
    for wrong in (("--property", "beauty"), ("--picture", "x.gif")):
        code, _, err = cli("optimize", "run", *options, *wrong, "-o", "better.csv")
        assert code == 1 and wrong[1] in err


@pytest.mark.parametrize(
    "model, training, sampling",
    [
        ("graph-sde", ("--sde", "ve", "--objective", "implicit"), ("--sampler", "ancestral", "--corrections", "1")),
        ("graph-ncsn", ("--levels", "3"), ("--no-denoise", "--epsilon", "1e-4")),
        ("graph-ddpm", ("--chain", "30", "--prediction", "v"), ("--sampler", "ddim", "--eta", "0.5")),
    ],
)
def test_every_model_is_trained_sampled_and_judged_by_the_same_verbs(cli, mixed, tmp_path, model, training, sampling):
    small = ("--epochs", "1", "--hidden", "8", "--layers", "1")
    assert cli("train", "-i", mixed[0], "-m", model, "-o", "run", *small, *training)[0] == 2
    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (
        written[training[0].removeprefix("--")]
        == json.loads((tmp_path / "run" / "model.json").read_text())["settings"][training[0].removeprefix("--")]
    )
    options = ("-n", "4", "--structures", "train", "--steps", "4", *sampling)
    code, _, err = cli("generate", "run", *options, "-o", "out.csv")
    assert code == 0 and "4 rows" in err, err
    assert cli("evaluate", "out.csv", "--train", mixed[0], "--model", "run", "--json", "m.json")[0] == 0
    assert json.loads((tmp_path / "m.json").read_text())["rows"][0]["nats_per_atom"] > 0
    code, _, err = cli("train", "-i", mixed[0], "-m", model, "-o", "other", "--kinetic", "1")
    assert code == 1 and f"a {model} has no setting kinetic" in err


def test_a_federation_is_run_and_goes_on(cli, tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "fed.toml").write_text(
        'suite = "digits"\nclients = ["contrast", "noise", "blur"]\nclient_examples = 60\ntest_examples = 40\n'
        "[settings]\npretrain_steps = 20\nclient_steps = 2\nserver_steps = 2\n[joins]\nnoise = 2\n"
    )
    code, out, err = cli("federate", "fed.toml", "--clients", "2", "--rounds", "2", "-o", "run")
    assert code == 0 and "contrast" in out and "blur" not in out and "models, log and accuracy.svg" in err
    log = json.loads((tmp_path / "run" / "federation.json").read_text())
    assert [one["nearest"] for one in log["rounds"]] == [{}, {"noise": "contrast"}]
    picture = (tmp_path / "run" / "accuracy.svg").read_text()
    assert picture.count("<polyline") == 2 and 'xmlns="http://www.w3.org/2000/svg"' in picture
    assert "var(" not in picture and picture.count('polyline style="stroke:#') == 2
    code, _, err = cli("federate", "fed.toml", "--clients", "2", "--rounds", "3", "-o", "run")
    assert code == 1 and "--resume" in err
    code, *_ = cli("federate", "fed.toml", "--clients", "2", "--rounds", "3", "-o", "run", "--resume")
    assert code == 0 and len(json.loads((tmp_path / "run" / "federation.json").read_text())["rounds"]) == 3
    code, _, err = cli("federate", "fed.toml", "--clients", "9", "-o", "other")
    assert code == 1 and "has 3 (contrast, noise, blur)" in err
