"""MOSES's table: its names, its order, our numbers."""

import csv

import pytest

from graphgen import GraphgenError
from graphgen.compat import moses
from graphgen.generated import Generated
from graphgen.metrics import distribution
from graphgen.metrics.describe import describe

TEST = ["CCOC(=O)c1ccccc1", "CC(C)Cc1ccc(C)cc1", "O=C(O)c1ccc2ccccc2c1", "CCN(CC)C(=O)c1ccncc1", "COc1ccc(CN)cc1"]
MADE = ["CCOC(=O)c1ccccc1C", "O=C(NC)c1ccc2ccccc2c1", None, "CCN(C)C(=O)c1ccncc1", "not a molecule", "CCCC"]


def test_names_and_numbers(tmp_path):
    found = moses.metrics(Generated(MADE, [None] * len(MADE)), TEST, train=["CCCC"])
    assert tuple(found) == moses.NAMES
    assert found["valid"] == pytest.approx(4 / 6) and found["unique@1000"] is None
    assert found["Novelty"] == pytest.approx(3 / 4) and found["SNN/TestSF"] is None
    valid = describe([text for text in MADE if text and " " not in text])
    assert found["SNN/Test"] == distribution.snn(valid, describe(TEST)).value
    assert found["weight"] > 0 and found["logP"] > 0
    moses.save(tmp_path / "m.csv", found)
    with open(tmp_path / "m.csv") as file:
        assert dict(csv.reader(file))["valid"] == "0.666667"
    header, row = moses.table({"ours": found})
    assert header[:2] == ["Model", "valid"] and row[0] == "ours" and len(row) == len(header) == 20


def test_scaffold_split_is_a_second_reference():
    found = moses.metrics(MADE, TEST, test_scaffolds=TEST)
    assert found["SNN/Test"] == found["SNN/TestSF"] and found["Novelty"] is None


def test_nothing_to_measure():
    with pytest.raises(GraphgenError, match="no molecules"):
        moses.metrics([], TEST)
    with pytest.raises(GraphgenError, match="valid molecule"):
        moses.metrics(["x y", None], TEST)
