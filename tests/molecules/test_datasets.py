import gzip
import os
from dataclasses import replace

import pytest

from graphgen.errors import GraphgenError
from graphgen.molecules import datasets
from graphgen.molecules.encoded import SPLITS

needs_data = pytest.mark.skipif(not os.environ.get("GRAPHGEN_DATA"), reason="set GRAPHGEN_DATA")


def load(path, **options):
    return datasets.load(path, progress=False, **options)


def test_nci_needs_nothing_but_rdkit(monkeypatch):
    monkeypatch.delenv("GRAPHGEN_DATA", raising=False)
    nci = load("nci")
    report = nci.report
    assert report["rows"] == 4_999 == report["encoded"] + sum(report["rejected"].values())
    assert 4_550 < len(nci) < 4_650
    assert int(nci.sizes.max()) <= 38
    assert {element for element, _ in nci.vocabulary.atoms} <= {"C", "N", "O", "F", "P", "S", "Cl", "Br", "I"}
    assert sum(len(nci.split(name)) for name in SPLITS) == len(nci)


def test_every_row_is_a_molecule_or_a_reject(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"smiles,x\nCCO,1\nbad,2\n*,3\n[CH2],4\nC\0,5\nC.C,6\n,7\nN\nC\xe9,8\nOCC,9\n")
    mine = load(path)
    assert [mine.smiles(i) for i in range(len(mine))] == ["CCO", "CCO"]
    assert [reject.where for reject in mine.rejects] == [f"mine.csv:{line}" for line in range(3, 11)]
    assert [reject.reason.split(":")[0] for reject in mine.rejects] == [
        "not a SMILES",
        "dummy atom",
        "radical",
        "not a SMILES",
        "2 fragments",
        "empty",
        "broken CSV row",
        "not a SMILES",
    ]


def test_the_second_load_maps_the_first(tmp_path, monkeypatch):
    path = tmp_path / "mine.smi"
    path.write_text("CCO\nN\n")
    first = load(path)
    monkeypatch.setattr(datasets, "_encode", None)
    assert load(path).report == first.report
    (tmp_path / "mine.smi.gz").write_bytes(gzip.compress(b"CCO\nN\n"))
    with pytest.raises(TypeError):
        load(tmp_path / "mine.smi.gz")


def test_a_changed_file_or_column_is_encoded_again(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("smiles,other\nC,N\n")
    assert load(path).smiles(0) == "C"
    assert load(path, column="other").smiles(0) == "N"
    path.write_text("smiles,other\nO,N\n")
    assert load(path).smiles(0) == "O"


def test_a_damaged_cache_is_made_anew(tmp_path):
    path = tmp_path / "mine.smi"
    path.write_text("CCO\n")
    load(path)
    (cached,) = datasets.cache_folder().glob("*.safetensors")
    cached.write_bytes(cached.read_bytes()[:50])
    assert load(path).smiles(0) == "CCO"


def test_errors_are_one_line_and_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHGEN_DATA", str(tmp_path))
    with pytest.raises(GraphgenError, match="there are nci, qm9, zinc250k"):
        load("qm10")
    with pytest.raises(GraphgenError, match="run `graphgen data qm9 --download`"):
        load("qm9")
    (tmp_path / "qm9").mkdir()
    (tmp_path / "qm9/qm9_gdb_order.csv").write_text("smiles\nC\n")
    with pytest.raises(GraphgenError, match="not the published file of qm9"):
        load("qm9")
    (tmp_path / "none.smi").write_text("bad\n[O]\n")
    with pytest.raises(GraphgenError, match=r"none of 2 records is a usable molecule; none\.smi:1: not a"):
        load(tmp_path / "none.smi")
    (tmp_path / "good.smi").write_text("C\n")
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAPHGEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(GraphgenError, match="set GRAPHGEN_CACHE"):
        load(tmp_path / "good.smi")


def test_download_takes_the_first_mirror_that_has_the_published_file(monkeypatch, tmp_path):
    def retrieve(url, known_hash, path, fname):
        if "cdn" not in url:
            raise OSError("403 Forbidden")
        (path / fname).write_bytes(gzip.compress(b"smiles\nC\n") if url.endswith(".gz") else b"smiles\nC\n")

    monkeypatch.delenv("GRAPHGEN_DATA", raising=False)
    monkeypatch.setattr(datasets.pooch, "retrieve", retrieve)
    with pytest.raises(GraphgenError, match=r"403 Forbidden.*not the published file"):
        datasets.download("qm9")
    assert not list(datasets.cache_folder().rglob("*.csv"))
    source = datasets.SOURCES["qm9"]
    digest = datasets._sha256(_written(tmp_path / "same", b"smiles\nC\n"))
    monkeypatch.setitem(datasets.SOURCES, "qm9", replace(source, sha256=digest))
    assert datasets.download("qm9").read_bytes() == b"smiles\nC\n"
    assert load("qm9").smiles(0) == "C"
    with pytest.raises(GraphgenError, match="no data set 'x'"):
        datasets.download("x")


def _written(path, data):
    path.write_bytes(data)
    return path


@needs_data
def test_the_named_files_are_the_published_ones():
    for name, source in datasets.SOURCES.items():
        assert datasets._find(name, source).exists()
