"""The texts that encoded molecules came from."""

import pytest

pytest.importorskip("rdkit")

from graphgen.metrics.floors import as_in_source
from graphgen.molecules import datasets
from graphgen.molecules.records import read_records


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "some.smi"
    path.write_text("C[C@H](N)O a\nbroken b\nCC.O c\n[13CH4] d\nCCO e\n")
    return path


def test_texts_are_those_of_the_rows(source):
    data = datasets.load(source, progress=False)
    assert as_in_source(data, read_records(datasets.source_file(source))) == ["C[C@H](N)O", "[13CH4]", "CCO"]
    for name in ("train", "valid", "test"):
        part = data.split(name)
        texts = as_in_source(part, read_records(source))
        assert [data.smiles(row) for row in part.rows.tolist()] == [part.smiles(i) for i in range(len(part))]
        assert len(texts) == len(part)


def test_another_source_is_none(source, tmp_path):
    data = datasets.load(source, progress=False)
    other = tmp_path / "other.smi"
    other.write_text("C a\n")
    assert as_in_source(data, read_records(other)) is None
