import csv
import gzip
import random

import pytest
from rdkit import Chem

from graphgen.errors import GraphgenError
from graphgen.molecules.codec import EncodeError, canonical_smiles, encode, parse
from graphgen.molecules.records import Record, Reject, read_records, write_rejects


@pytest.fixture
def read(tmp_path):
    def read(name, content, column=None):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return list(read_records(path, column))

    return read


def texts(records):
    return [record.text for record in records if isinstance(record, Record)]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.smi", "a.SMI.gz", "a.txt"])
def test_smiles_lines_in_any_encoding(read, name, encoding, ending):
    content = ending.join(["CCO ethanol", "", "  C\tm e  ", "N"]).encode(encoding)
    file = name
    assert read(name, content) == [
        Record(f"{file}:1", "CCO", "ethanol"),
        Record(f"{file}:3", "C", "m e"),
        Record(f"{file}:4", "N", ""),
    ]


@pytest.mark.parametrize("header", ["smiles", "SMILES id", "canonical_smiles\tname"])
def test_a_header_of_smiles_lines_is_skipped(read, header):
    assert texts(read("a.smi", f"\n{header}\nC\nN\n")) == ["C", "N"]


def test_bytes_outside_utf8_are_latin1_and_nul_is_seen(read):
    records = read("a.smi", b"CCO \xe9thanol\nC\0C x\nN\n")
    assert records[0] == Record("a.smi:1", "CCO", "éthanol")
    assert records[1].text == "C\u2400C" and records[2].text == "N"


def test_csv_column_by_name_or_by_likeness(read):
    content = "id, SMILES ,x\n1,CCO,2\n2,C,3\n"
    assert read("a.csv", content) == [Record("a.csv:2", "CCO", "1"), Record("a.csv:3", "C", "2")]
    assert texts(read("a.csv", "mol,canonical_smiles\nx,C\n")) == ["C"]
    assert texts(read("a.csv", "mol,other\nC,x\n", "mol")) == ["C"]
    assert texts(read("a.tsv", "x\tsmiles\n1\tC\n")) == ["C"]
    assert texts(read("a.csv", "x;smiles\n1;C\n")) == ["C"]


def test_every_csv_row_comes_out_once(read):
    content = 'smiles,x\nC,1\nN\n\nO,1,2\n,5\n"C\n",7\n"CC,8\nCCC,9\nF,10,\nS"S,11\n'
    records = read("a.csv", content)
    lines = (2, 3, 5, 6, 7, 9, 10, 11, 12)
    assert [record.where for record in records] == [f"a.csv:{line}" for line in lines]
    assert texts(records) == ["C", "", "C", "CCC", "F", 'S"S']
    rejects = [record for record in records if isinstance(record, Reject)]
    assert [reject.text for reject in rejects] == ["N", "O,1,2", '"CC,8']
    assert rejects[0].reason == "broken CSV row: 1 cells where the header has 2"
    assert rejects[2].reason.startswith("broken CSV row: ")


def test_a_stray_quote_swallows_one_row_only(read):
    rows = [f"{'C' * (i % 7 + 1)},{i}" for i in range(100)]
    rows[10] = '"C,10'
    rows[60] = 'N"C",60"'
    records = read("a.csv", "smiles,x\n" + "\n".join(rows))
    assert len(records) == 100
    assert sum(isinstance(record, Reject) for record in records) == 1


def test_sd_file(read):
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
    content = f"{block}>  <x>\n1\n\n$$$$\nbroken\n$$$$\r\nsecond{block}"
    first, broken, second = read("a.sdf", content)
    assert (first.where, first.form) == ("a.sdf:1", "molblock")
    assert canonical_smiles(parse(first.text, "molblock")) == "CCO"
    assert broken.name == "broken" and second.name == "second"
    assert canonical_smiles(parse(second.text, "molblock")) == "CCO"
    with pytest.raises(ValueError, match="not a mol block"):
        parse(broken.text, "molblock")


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.smi", "", None, "holds no molecules"),
        ("a.smi", "smiles name\n", None, "holds no molecules"),
        ("a.csv", "", None, "holds no molecules"),
        ("a.csv", "smiles,x\n", None, "holds no molecules"),
        ("a.sdf", "\n\n", None, "holds no molecules"),
        ("a.csv", "mol,x\nC,1\n", None, "no column is called smiles; .* mol, x"),
        ("a.csv", "smiles1,smiles2\nC,C\n", None, "more than one column .* smiles1, smiles2"),
        ("a.csv", "smiles,x\nC,1\n", "y", "no column 'y'; the columns are smiles, x"),
        ("a.csv", "x" * 200_000, None, "the first line is not a CSV header"),
        ("a.smi", "C\n", "y", "only .csv and .tsv files have columns"),
        ("a.xyz", "C\n", None, "unknown format"),
        ("a", "C\n", None, "unknown format"),
    ],
)
def test_a_wrong_file_is_one_line(read, name, content, column, message):
    with pytest.raises(GraphgenError, match=message) as caught:
        read(name, content, column)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_folder_is_one_line(tmp_path):
    (tmp_path / "folder.smi").mkdir()
    for name in ("none.smi", "folder.smi", "none.csv.gz"):
        with pytest.raises(GraphgenError, match="cannot be read"):
            read_records(tmp_path / name)


def test_a_damaged_archive_is_one_line(tmp_path):
    whole = gzip.compress(b"C\n" * 100_000)
    for data in (whole[: len(whole) // 2], whole[:20] + b"\xff" * 40 + whole[60:]):
        (tmp_path / "a.smi.gz").write_bytes(data)
        with pytest.raises(GraphgenError, match="cannot be read to the end"):
            list(read_records(tmp_path / "a.smi.gz"))


@pytest.mark.parametrize("name", ["a.smi", "a.csv", "a.sdf"])
def test_no_bytes_at_all_cause_anything_but_rejects(read, name):
    dice = random.Random(name)
    pieces = [b"smiles", b",", b"\n", b"\r", b'"', b"\0", b"C", b"c1ccccc1", b"[", b"(", b"*", b"\t", b" "]
    pieces += [b"\xff\xfe", b"\xe9", b"\xef\xbb\xbf", b"$$$$\n", b"M  END\n"]
    pieces += [b"  1  0  0  0  0  0  0  0  0  0999 V2000\n"]
    for _ in range(300):
        try:
            records = read(name, b"".join(dice.choices(pieces, k=dice.randrange(1, 60))))
        except GraphgenError as error:
            assert "\n" not in str(error)
            continue
        for record in records:
            if isinstance(record, Record):
                try:
                    encode(parse(record.text, record.form))
                except EncodeError as error:
                    assert error.reason


def test_rejects_are_written_as_csv(tmp_path):
    rejects = [Reject("a.smi:1", "not a SMILES: x", 'C,"\n'), Reject("a.smi:2", "radical", "[O]")]
    write_rejects(tmp_path / "r.csv", rejects)
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["where", "reason", "input"], *map(list, rejects)]
