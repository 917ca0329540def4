"""Molecules in Parquet files: the same rules as in others, with rows in the place of lines."""

import pytest

from graphgen.errors import GraphgenError
from graphgen.molecules import datasets
from graphgen.molecules.records import Record, read_records

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path, **columns):
    parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


def test_rows_count_from_one(tmp_path):
    path = write(tmp_path / "a.parquet", Name=["x", None, "z"], SMILES=["CC", None, " CO\0 "])
    assert list(read_records(path)) == [
        Record("a.parquet:1", "CC", "x"),
        Record("a.parquet:2", "", ""),
        Record("a.parquet:3", "CO\u2400", "z"),
    ]


def test_bad_rows_are_rejected_with_their_number(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "a.parquet", structure=["CC", "C1CC", None, "CO", "CC.O"], weight=[1, 2, 3, 4, 5])
    data = datasets.load(path, "structure", progress=False)
    assert [data.smiles(i) for i in range(len(data))] == ["CC", "CO"]
    assert [reject.where for reject in data.rejects] == ["a.parquet:2", "a.parquet:3", "a.parquet:5"]
    with pytest.raises(GraphgenError, match="none of 5 records is a usable molecule; a.parquet:1: not a SMILES"):
        datasets.load(path, "weight", progress=False)


@pytest.mark.parametrize("column, words", [("x", "no column 'x'; the columns are a, b"), (None, "no column is called")])
def test_columns_are_chosen_as_in_csv(tmp_path, column, words):
    with pytest.raises(GraphgenError, match=words):
        read_records(write(tmp_path / "a.parquet", a=["C"], b=["C"]), column)


def test_damaged_and_empty_files(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(GraphgenError, match="cannot be read as Parquet") as error:
        read_records(tmp_path / "a.parquet")
    assert "\n" not in str(error.value)
    with pytest.raises(GraphgenError, match="no molecules"):
        read_records(write(tmp_path / "b.parquet", smiles=arrow.array([], "string")))
