"""Rows written are rows read."""

import sys
from dataclasses import replace

import pytest
import torch
from rdkit import Chem

from graphgen.errors import GraphgenError
from graphgen.generated import Generated
from graphgen.molecules import output


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
        "SMILES,SMILES_state,id,structure,reason,atoms",
        "CCO,1,0,4,,C C O",
        ',0,1,0,"valence: N, 5",O',
        "C[N+](=O)[O-],1,2,4,,C N+ O O-",
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


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_tables_keep_everything(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    first = replace(rows(), nll=torch.tensor([1.5, 2.25, 3.0]), nll_stderr=torch.tensor([0.5, 0.25, 1.0]))
    assert first.save(tmp_path / name) == 0
    again = Generated.load(tmp_path / name)
    assert again.columns == first.columns
    assert list(again.columns)[:4] == ["SMILES", "SMILES_state", "NLL", "NLL_stderr"]
    before = (tmp_path / name).read_bytes()
    first.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["out.smi", "out.smi.gz", "out.sdf", "out.sdf.gz"])
def test_lists_keep_the_molecules(tmp_path, name):
    assert rows().save(tmp_path / name) == 1
    again = Generated.load(tmp_path / name)
    assert again.smiles == ["CCO", "C[N+](=O)[O-]"] and again.reasons == [None, None]


def test_an_sdf_says_what_the_table_says(tmp_path):
    replace(rows(), nll=torch.tensor([1.5, 2.25, 3.0])).save(tmp_path / "out.sdf")
    last = list(Chem.SDMolSupplier(str(tmp_path / "out.sdf")))[-1]
    assert last.GetProp("_Name") == "2" and last.GetProp("NLL") == "3.0000" and last.GetProp("atoms") == "C N+ O O-"
    assert last.GetConformer().GetPositions().any()


def test_repeated_molecules_are_told_from_new_ones():
    columns = Generated(["C", "CC", None, "C"], [None, None, "x", None]).columns
    assert columns["SMILES_state"] == [1, 1, 0, 2] and "NLL" not in columns


def test_molecules_and_a_frame():
    made = Generated(["CCO", None, "C1CC"], [None, "x", None])
    assert [mol and mol.GetNumAtoms() for mol in made.mols] == [3, None, None]
    pandas = pytest.importorskip("pandas")
    frame = rows().to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 3 and frame.SMILES[0] == "CCO"


def test_a_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(GraphgenError, match=r"pip install 'graphgen\[tables\]'"):
        rows().to_frame()


def test_parquet_without_pyarrow_says_so_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(GraphgenError, match="pyarrow is not installed"):
        output.kind_of(tmp_path / "out.parquet")


def test_a_notebook_shows_pictures():
    page = rows()._repr_html_()
    assert page.count("<svg") == 2 and "3 attempts, 2 molecules, 2 distinct" in page
    assert "<script>" not in Generated(["<script>"], [None])._repr_html_()


def test_a_column_by_another_name(tmp_path):
    (tmp_path / "theirs.csv").write_text("Structure,nll\nCC,\n,\n")
    again = Generated.load(tmp_path / "theirs.csv", "structure")
    assert again.smiles == ["CC", None] and again.nll is None


def test_records_that_cannot_be_read_are_attempts(tmp_path):
    rows().save(tmp_path / "out.sdf")
    text = (tmp_path / "out.sdf").read_text()
    (tmp_path / "out.sdf").write_text(text.replace("  3  2", "  3  x", 1))
    again = Generated.load(tmp_path / "out.sdf")
    assert again.smiles[0] is None and again.reasons[0].startswith("not a mol block") and again.smiles[1]


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
        ("a.csv", "smiles,NLL\nC,x\n", "a.csv:2: NLL 'x' is not a number"),
        ("a.smi", "\n\n", "no molecules"),
        ("a.csv", "smiles,structure\nC,1\nC,-2\n", "a.csv:3: structure '-2'"),
        ("a.csv", "smiles,structure\nC,1\nC,\n", "1 rows have no structure"),
        ("a.smi", b"\xff\xfe", "no molecules"),
        ("a.csv.gz", b"smiles\nC\n", "is not gzipped"),
        ("a.xyz", "C\n", "unknown format"),
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
    with pytest.raises(GraphgenError, match=r"end in \.csv, \.parquet, \.smi, \.sdf"):
        rows().save(tmp_path / "out.xyz")
    with pytest.raises(GraphgenError, match="cannot write"):
        rows().save(tmp_path / "out.parquet.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"reasons": [None]},
        {"structures": torch.tensor([1])},
        {"node_ptr": None},
        {"node_ptr": torch.tensor([0, 3, 4, 9])},
        {"names": ("C",)},
        {"nll": torch.zeros(2)},
        {"nll_stderr": torch.zeros(4)},
    ],
)
def test_shapes_are_checked(change):
    with pytest.raises(ValueError):
        Generated(**{**vars(rows()), **change})
