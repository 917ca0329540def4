"""The command line as a user meets it: what it writes, what it says, how it exits."""

import csv
import json
import re
import sys

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
    code, out, err = cli("generate", "run", "-n", "7", "--structures", path, "--split", "train", "-o", "out.csv")
    assert code == 2 and out == "" and "7 attempts" in err
    with open(tmp_path / "out.csv") as file:
        assert len(list(csv.DictReader(file))) == 7
    code, out, err = cli(
        "evaluate", "out.csv", "--train", path, "--split", "train", "--model", "run", "-o", "r.html", "--json", "m.json"
    )
    assert code == 0 and "look-up" in out and "V_strict" in out
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert numbers["rows"][0]["n"] == 7 and numbers["rows"][0]["nats_per_atom"] > 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") >= 2 and not re.search(r"(src|href)=.http", page)


def test_a_model_of_a_file_asks_whose_bonds_to_use(cli, mixed):
    path, _ = mixed
    cli("train", "-i", path, "-o", "run", "--epochs", "1", "--hidden", "8", "--layers", "1")
    code, _, err = cli("generate", "run", "-o", "out.csv")
    assert code == 1 and "--structures" in err


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
        (("evaluate", "nowhere.csv", "--train", "nci"), "nowhere.csv"),
        (("evaluate", "table.csv", "--train", "nci", "--split", "middle"), "middle"),
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


def test_interrupt_exits_130(cli, monkeypatch):
    import graphgen.cli.doctor as verb

    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "_self_test", stopped)
    code, out, err = cli("doctor")
    assert code == 130 and "interrupted" in err and "Traceback" not in out + err


def test_help_has_examples(cli):
    for verb in ("demo", "train", "generate", "evaluate", "data", "doctor"):
        code, out, _ = cli(verb, "--help")
        assert code == 0 and ("Example" in out or verb == "demo")
