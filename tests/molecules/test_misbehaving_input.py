"""Files as they come: good in is good out, bad in is a reject with file:line and a reason, the rest is one line.

Everything goes through the command line, because that is where a user meets it.
"""

import codecs
import csv
import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rdkit import Chem

from graphgen.cli.main import main

ALCOHOL = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
AMINE = Chem.MolToMolBlock(Chem.MolFromSmiles("CCN"))
SDF = f"{ALCOHOL}>  <x>\n1\n\n$$$$\n{AMINE}$$$$\n"
SECOND = ALCOHOL.count("\n") + 5
AFTER = SDF.count("\n") + 1
LONG = 10_000_000


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["graphgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stop.value.code, out, err

    return run


@pytest.fixture
def clean(cli, tmp_path):
    """What `graphgen data` makes of a file: exit code, SMILES that go on, (line, start of the reason) of the rest."""

    def clean(name, content, *options):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        code, _, err = cli("data", name, "-o", "out.csv", *options)
        rejects = [(row["where"], row["reason"].split(":")[0]) for row in table("out.csv.rejects.csv")]
        assert all(where.startswith(f"{name}:") for where, _ in rejects)
        lines = [(int(where.rpartition(":")[2]), reason) for where, reason in rejects]
        if rejects:
            assert f"{len(rejects):,} rows rejected" in err
        return code, [row["smiles"] for row in table("out.csv")], lines

    return clean


def table(path):
    if not os.path.exists(path):
        return []
    csv.field_size_limit(131_072)
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


NO_SMILES, BROKEN = "not a SMILES", "broken CSV row"


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        pytest.param("a.smi", b"CCO\nC\0C x\nCCN\0\nCN\n", ["CCO", "CN"], [(2, NO_SMILES), (3, NO_SMILES)], id="NUL"),
        pytest.param("a.csv", b"smiles,x\nCCO,1\nC\0,2\nCN,\0\n", ["CCO", "CN"], [(3, NO_SMILES)], id="NUL in a cell"),
        pytest.param("a.smi", "CCO éthanol\nCN\n".encode("utf-16"), ["CCO", "CN"], [], id="UTF-16"),
        pytest.param(
            "a.smi", codecs.BOM_UTF16_BE + "CCO\nC€\nCN\n".encode("utf-16-be"), ["CCO", "CN"], [(2, NO_SMILES)],
            id="UTF-16 big-endian",
        ),
        pytest.param("a.smi", "CCO e\r\nCN\r\n".encode("utf-16-le"), ["CCO", "CN"], [], id="UTF-16 without BOM"),
        pytest.param(
            "a.csv", "smiles,x\nCCO,€\nC,\n".encode("utf-16-be"), ["CCO", "C"], [], id="big-endian without BOM"
        ),
        pytest.param("a.smi", "C\n".encode("utf-16-le"), ["C"], [], id="UTF-16 of one atom"),
        pytest.param("a.sdf", SDF.encode("utf-16-le"), ["CCO", "CCN"], [], id="UTF-16 SDF"),
        pytest.param(
            "a.smi", "CCO éthanol\nCé x\nCN\n".encode("latin-1"), ["CCO", "CN"], [(2, NO_SMILES)], id="latin-1"
        ),
        pytest.param("a.smi", "CCO\r\n\r\nbad\r\nCN", ["CCO", "CN"], [(3, NO_SMILES)], id="CRLF"),
        pytest.param("a.csv", 'smiles,x\r\nCCO,"1\r\n2"\r\nbad,3\r\n', ["CCO"], [(4, NO_SMILES)], id="CRLF in a cell"),
        pytest.param("a.smi", "CCO\rbad\rCN\r", ["CCO", "CN"], [(2, NO_SMILES)], id="CR alone"),
        pytest.param("a.csv", "\ufeffsmiles,x\nCCO,1\n", ["CCO"], [], id="BOM"),
        pytest.param("a.smi", "\ufeffCCO\n\ufeffCN\n", ["CCO"], [(2, NO_SMILES)], id="BOM within"),
        pytest.param("a.smi", f"CCO\n{'C' * LONG}\nCN\n", ["CCO", "CN"], [(2, "too long")], id="10 MB line"),
        pytest.param("a.csv", f"smiles,x\nCC,1\n{'C' * LONG},2\nN,3\n", ["CC", "N"], [(3, BROKEN)], id="10 MB cell"),
        pytest.param("a.csv", f"smiles,x\nN,1\n{'CC,' * (LONG // 3)}\nC,3", ["N", "C"], [(3, BROKEN)], id="10 MB row"),
        pytest.param("a.sdf", f"{SDF}{'C' * LONG}\n$$$$\n", ["CCO", "CCN"], [(AFTER, "too long")], id="10 MB SDF"),
        pytest.param(
            "a.csv", "smiles,x\nCCO,1\nCN\nC,1,2\nCC,1,,\n", ["CCO", "CC"], [(3, BROKEN), (4, BROKEN)], id="ragged"
        ),
        pytest.param("a.csv", "smiles,x,x\nCCO,1,2\n", ["CCO"], [], id="duplicate header that does not matter"),
        pytest.param(
            "a.csv", "smiles,x\n,1\n ,2\n\"\",3\nCCO,4\n,\n", ["CCO"], [(line, "empty") for line in (2, 3, 4, 6)],
            id="empty cells",
        ),
        pytest.param(
            "a.csv", 'smiles\nCCO\n""\n \n\nCN\n', ["CCO", "CN"], [(3, "empty"), (4, "empty")], id="empty cells alone"
        ),
        pytest.param("a.tsv", "x\tsmiles\n1\tCCO\n\t\n2\tCN\n", ["CCO", "CN"], [(3, "empty")], id="a row of tabs"),
        pytest.param("a.smi", "CCO\n\tCO\nCN\n \n", ["CCO", "CN"], [(2, "empty")], id="a name without SMILES"),
        pytest.param("a.csv", 'smiles,x\n"CCO\n",1\nbad,2\n', ["CCO"], [(4, NO_SMILES)], id="newline ends a cell"),
        pytest.param(
            "a.csv", 'smiles,x\nCCO,"a\n\n""b"", c\n"\nbad,2\n"C\nN",3\nCN,4\n', ["CCO", "CN"],
            [(6, NO_SMILES), (7, NO_SMILES)], id="lines in cells",
        ),
        pytest.param(
            "a.csv", 'smiles,"a\nnote"\nCCO,1\nbad,2\n', ["CCO"], [(4, NO_SMILES)], id="newline in the header"
        ),
        pytest.param(
            "a.csv", 'smiles,x\n"C,1\n"CC,2\nCCC,3\nCCCC,"4\nN,5\n', ["CCC", "N"],
            [(2, BROKEN), (3, BROKEN), (5, BROKEN)], id="quotes that never close",
        ),
        pytest.param("a.csv", "smiles,x\nC C,1\n*,2\nCCO,3\n", ["CCO"], [(2, NO_SMILES), (3, "dummy atom")], id="C C"),
        pytest.param("a.smi", "C C\n*\n", ["C"], [(2, "dummy atom")], id="C named C"),
        pytest.param("a.sdf", SDF[:-60], ["CCO"], [(SECOND, "not a mol block")], id="truncated SDF"),
        pytest.param("a.sdf", SDF[:-5], ["CCO", "CCN"], [], id="SDF without its last mark"),
        pytest.param(
            "a.sdf", f"{SDF}{ALCOHOL}{AMINE}$$$$\n{ALCOHOL}$$$$\n", ["CCO", "CCN", "CCO"],
            [(AFTER, "2 mol blocks in one record")], id="SDF without a mark between two",
        ),
        pytest.param("a.sdf", SDF.replace("\n", "\r\n"), ["CCO", "CCN"], [], id="SDF with CRLF"),
        pytest.param("a.sdf", f"$$$$\n{SDF}", ["CCO", "CCN"], [(1, "not a mol block")], id="SDF with an empty record"),
        pytest.param("a.SMI.gz", 2 * gzip.compress(b"CCO\n", mtime=0), ["CCO", "CCO"], [], id="gz twice"),
        pytest.param("a [bold] name, spaced.smi", "CCO\nbad\n", ["CCO"], [(2, NO_SMILES)], id="name"),
    ],
)  # fmt: skip
def test_bad_records_are_listed_and_good_ones_go_on(clean, name, content, good, bad):
    assert clean(name, content) == (2 if bad else 0, good, bad)


@pytest.mark.parametrize("count", [1, 5])
def test_a_long_cell_takes_its_lines_or_is_listed_line_by_line(clean, count):
    cell = "\n".join(["word"] * 10 * count)
    code, good, bad = clean("a.csv", f'smiles,x\nCCO,"{cell}"\nCN,1\n')
    assert (code, good) == ((0, ["CCO", "CN"]) if count == 1 else (2, ["CN"]))
    assert bad == [] if count == 1 else [line for line, _ in bad] == list(range(2, 52))


def test_what_was_wrong_is_shown_whole_or_marked_as_cut(clean):
    clean("a.smi", f"C(\n{'C' * LONG}\nC\n")
    short, long = table("out.csv.rejects.csv")
    assert short["input"] == "C("
    assert len(long["input"]) < 131_072 and long["input"].endswith("(cut, 10,000,000 characters)")


# No clock in it: the bytes are part of the tests' names, which have to be the same in every process of a run.
WHOLE = gzip.compress(random.Random(0).randbytes(1000).hex().encode(), mtime=0)


@pytest.mark.parametrize("verb", ["data", "train", "evaluate"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.smi", b"", "no molecules"),
        ("a.csv", b"", "no molecules"),
        ("a.csv", b"\xef\xbb\xbf\r\n\r\n", "no molecules"),
        ("a.smi.gz", gzip.compress(b"", mtime=0), "no molecules"),
        ("a.csv", b"smiles,x\n", "no molecules"),
        ("a.smi", b"smiles\n\n", "no molecules"),
        ("a.csv", b"mol,x\nC,1\n", "columns are mol, x"),
        ("a.csv", b"smiles,smiles\nC,N\n", "more than one column"),
        ("a.csv", b"SMILES,smiles\nC,N\n", "more than one column"),
        ("a.csv", b"x," * 1_000_000, "x, x, "),
        ("a.csv", b"PK\x03\x04\x1b[31m\x08,\0\xff\n1,2\n", "columns are PK   [31m , "),
        ("a.csv", b'a,"b\nc"\n1,2\n', "columns are a, b c"),
        ("a.csv", b'"smiles,x\n' + b"C,1\n" * 30, "header"),
        ("a.smi.gz", WHOLE[:-20], "copy or download it again"),
        ("a.csv.gz", b"smiles\nC\n", "is not gzipped"),
        ("a.smi", WHOLE, "is gzipped"),
        ("a.csv", WHOLE, "is gzipped"),
        ("a.smi", None, "folder"),
        ("a b.csv.gz", None, "folder"),
        ("none [/b] here.smi", ..., "none [/b] here.smi: no such file"),
        ("a.xyz", b"C\n", ".smi"),
        ("a\udce9.csv", b"mol\nC\n", "columns are mol"),
    ],
)
def test_a_file_of_no_use_is_one_line(cli, tmp_path, verb, name, content, words):
    if content is None:
        (tmp_path / name).mkdir()
    elif content is not ...:
        (tmp_path / name).write_bytes(content)
    before = set(tmp_path.rglob("*"))
    options = {"data": ("-o", "out.csv"), "evaluate": ("--train", "nci", "-o", "r.html")}
    code, out, err = cli("train", "-i", name, "-o", "run") if verb == "train" else cli(verb, name, *options[verb])
    lines = [line for line in err.splitlines() if "error:" in line]
    assert code == 1 and len(lines) == 1 and words in lines[0] and len(lines[0]) < 1_000, err
    assert "error:" in err.splitlines()[-1] and out == ""
    assert {path for path in set(tmp_path.rglob("*")) - before if "cache" not in str(path)} == set()


@pytest.mark.parametrize("verb", ["data", "train"])
def test_a_file_with_nothing_good_in_it_is_one_line(cli, tmp_path, verb):
    (tmp_path / "a.smi").write_text("[/b]\n[O]\n*\n")
    code, _, err = cli(verb, *(("a.smi",) if verb == "data" else ("-i", "a.smi", "-o", "run")))
    assert code == 1 and "none of 3 records is a usable molecule; a.smi:1: not a SMILES" in err


@pytest.mark.parametrize(("column", "words"), [("y", "no column 'y'"), ("x", "more than one"), ("[/y]", "'[/y]'")])
def test_a_wrong_column_is_one_line(cli, tmp_path, column, words):
    (tmp_path / "a.csv").write_text("smiles,x,x\nC,N,O\n")
    for arguments in (("data", "a.csv"), ("train", "-i", "a.csv", "-o", "run")):
        code, _, err = cli(*arguments, "--column", column)
        assert code == 1 and words in err and len(err.splitlines()) == 1


GOOD = ["CCO", "c1ccccc1O", "CC(=O)N", "C[N+](C)(C)C", "OCC#N", "CCCl", "CC(C)=O", "NCCO", "CCOC", "O=C=O"] * 3
ROWS = [*(f"{text},1" for text in GOOD), "bad,2", "*,3", ",4", "C\0C,5", "C C,6", "N"]


KINDS = [("utf-8-sig", "\n"), ("utf-16", "\r\n"), ("utf-16-le", "\r"), ("latin-1", "\r\n")]


@pytest.mark.parametrize(("encoding", "ending"), KINDS)
def test_training_goes_on_with_what_is_good(cli, tmp_path, encoding, ending):
    (tmp_path / "my data.csv").write_bytes(ending.join(["smiles,x", *ROWS]).encode(encoding))
    code, _, err = cli("train", "-i", "my data.csv", "-o", "run", "--epochs", 1, "--hidden", 4, "--layers", 1)
    assert code == 2 and "30 molecules" in err and "model in run" in err
    lines = [row["where"] for row in table("run.rejects.csv")]
    assert lines == [f"my data.csv:{line}" for line in range(32, 38)]


@pytest.mark.parametrize(("encoding", "ending"), KINDS)
@pytest.mark.parametrize("name", ["my molecules.csv", "a.csv.gz", "a.smi", "a.SMI.gz"])
def test_evaluation_counts_every_row(cli, tmp_path, name, encoding, ending):
    table = ".csv" in name
    lines = ["smiles,é", *ROWS, '"C,7'] if table else ["smiles é", *GOOD, "bad", "*", "\t4", "C\0C", "", "x" * 20_000]
    data = ending.join(lines).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "train.smi").write_text("\n".join(GOOD))
    code, _, err = cli("evaluate", name, "--train", "train.smi", "--structures", "train", "--json", "m.json")
    row = json.loads((tmp_path / "m.json").read_text())["rows"][0]
    assert code == 0 and row["n"] == 30 + (7 if table else 5), err
    assert row["V_strict"] == 30 / row["n"]


def _many(path, count, seed=0):
    """``count`` good and ``count`` bad records in chance order; returns the SMILES and the lines with bad ones."""
    dice = random.Random(seed)
    wrong = ["bad", "C1CC", "C.C", "[CH2]", "*", "C C", "", "C\0C", "c1cccc1", "C(C)(C)(C)(C)C", "é", "C" * 12_000]
    kinds = [True] * count + [False] * count
    dice.shuffle(kinds)
    good, bad, line = [], [], 2
    with open(path, "w", newline="", encoding="latin-1") as file:
        file.write("id,smiles,note\r\n")
        for i, fine in enumerate(kinds):
            text = wrong[dice.randrange(1000) % 13 % len(wrong)] if not fine else "C" * (i % 7 + 1) + dice.choice("NOS")
            if len(text) > 1_000 and i % 50:
                text = "bad"
            row = dice.choice([f'"{text}"', text]) + dice.choice([",note", ',"two\r\nlines"', ",éè"])
            if not fine and dice.random() < 0.2:
                # A quote that another damaged row closes would make one row of two.
                row = dice.choice(['"bad,x', text, f"{text},x,y", f'{text},"x', f'"bad"{text},y'])
            (good if fine else bad).append(text if fine else line)
            file.write(f"{i},{row}\r\n")
            line += 1 + row.count("\n")
    return good, bad


def _held(pid, above=b""):
    """Resident memory of a process and all below it, in MB; 0 where there is no /proc."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        below = [child for task in tasks for child in task.read_text().split()]
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    # A process about to become another one is still in its parent's memory, which would be counted twice.
    if command == above:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(_held(child, command) for child in below)


SLOW = pytest.mark.skipif("GRAPHGEN_SLOW" not in os.environ, reason="takes half a minute; set GRAPHGEN_SLOW=1")


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=SLOW)])
def test_as_many_bad_records_as_good_ones(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    good, bad = _many("many.csv", count)
    started, megabytes = time.monotonic(), 0
    command = "import sys; from graphgen.cli.main import main; sys.argv[0] = 'graphgen'; main()"
    with subprocess.Popen([sys.executable, "-c", command, "data", "many.csv", "-o", "out.csv"]) as run:
        while run.poll() is None:
            megabytes = max(megabytes, _held(run.pid))
            time.sleep(0.1)
    print(f"{2 * count:,} records: {time.monotonic() - started:.0f} s, {megabytes:.0f} MB")
    assert run.returncode == 2
    assert [row["smiles"] for row in table("out.csv")] == good
    rejects = table("out.csv.rejects.csv")
    assert [row["where"] for row in rejects] == [f"many.csv:{line}" for line in bad]
    assert all(row["reason"] for row in rejects)
    if (os.cpu_count() or 1) <= 2:  # every processor has a process of its own
        assert megabytes < 500
