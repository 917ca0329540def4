"""Rows written are rows read."""

import pytest
import torch

from graphgen.errors import GraphgenError
from graphgen.generated import Generated


def rows() -> Generated:
    return Generated(
        smiles=["CCO", None, "C[N+](=O)[O-]"],
        reasons=[None, "valence: N, 5", None],
        structures=torch.tensor([4, 0, 4]),
        atoms=torch.tensor([0, 0, 1, 1, 0, 2, 1, 3]),
        node_ptr=torch.tensor([0, 3, 4, 8]),
        names=("C", "O", "N+", "O-"),
    )


def test_csv_round_trip(tmp_path):
    path = tmp_path / "out.csv"
    assert rows().save(path) == 0
    assert path.read_text().splitlines() == [
        "id,structure,smiles,reason,atoms",
        "0,4,CCO,,C C O",
        '1,0,,"valence: N, 5",O',
        "2,4,C[N+](=O)[O-],,C N+ O O-",
    ]
    again, first = Generated.load(path), rows()
    assert (again.smiles, again.reasons) == (first.smiles, first.reasons)
    assert torch.equal(again.structures, first.structures)
    assert torch.equal(again.node_ptr, first.node_ptr)
    assert [again.names[a] for a in again.atoms] == [first.names[a] for a in first.atoms]
    again.save(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_smi_says_what_it_leaves_out(tmp_path):
    path = tmp_path / "out.smi"
    assert rows().save(path) == 1
    assert path.read_text() == "CCO 0\nC[N+](=O)[O-] 2\n"
    assert Generated.load(path).smiles == ["CCO", "C[N+](=O)[O-]"]


def test_rows_without_labels(tmp_path):
    Generated(["C", None], [None, "x"]).save(tmp_path / "out.csv")
    again = Generated.load(tmp_path / "out.csv")
    assert again.smiles == ["C", None]
    assert again.structures is None and again.atoms is None


def test_foreign_csv(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("\ufeffname,SMILES\na,CC\nb,\n")
    again = Generated.load(path)
    assert again.smiles == ["CC", None]
    assert again.reasons == [None, "no molecule"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "no column smiles; its columns are x, y"),
        ("a.csv", "", "holds no molecules"),
        ("a.csv", "smiles\n", "no molecules"),
        ("a.smi", "\n\n", "no molecules"),
        ("a.csv", "smiles,structure\nC,1\nC,-2\n", "a.csv:3: structure '-2'"),
        ("a.csv", "smiles,structure\nC,1\nC,\n", "1 rows have no structure"),
        ("a.smi", b"\xff\xfe", "no molecules"),
    ],
)
def test_damaged_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GraphgenError, match=message) as error:
        Generated.load(path)
    assert "\n" not in str(error.value)


def test_missing_file_and_unknown_form(tmp_path):
    with pytest.raises(GraphgenError, match="no such file"):
        Generated.load(tmp_path / "none.csv")
    with pytest.raises(GraphgenError, match=r"use \.csv or \.smi"):
        rows().save(tmp_path / "out.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"reasons": [None]},
        {"structures": torch.tensor([1])},
        {"node_ptr": None},
        {"node_ptr": torch.tensor([0, 3, 4, 9])},
        {"names": ("C",)},
    ],
)
def test_shapes_are_checked(change):
    with pytest.raises(ValueError):
        Generated(**{**vars(rows()), **change})
