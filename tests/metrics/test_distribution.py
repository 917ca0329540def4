"""Distribution metrics together: what they say of equal sets, of nothing, and of what is missing."""

import json
import os

import pytest

pytest.importorskip("rdkit")
from rdkit import Chem

from graphgen.metrics import patterns
from graphgen.metrics.describe import describe
from graphgen.metrics.distribution import DEFINITIONS, compare, floor_of, properties
from graphgen.molecules.codec import canonical_smiles

REAL = ["CCO", "c1ccccc1-c1ccccc1", "CC(=O)Nc1ccc(O)cc1", "C1CC2CC1CC2", "CCN(CC)CC", "OC1CCCCC1"] * 5
MADE = ["CCCO", "c1ccccc1C", "CC(=O)N", "C1CC2CC1CC2"] * 6


def by_name(measures):
    return {measure.name: measure for measure in measures}


@pytest.fixture(scope="module")
def data():
    if "GRAPHGEN_DATA" not in os.environ:
        pytest.skip("set GRAPHGEN_DATA")


def test_a_set_beside_itself():
    real = describe(REAL)
    measures, histograms = compare(real, real)
    got = by_name(measures)
    assert histograms == []
    for name in ("SNN", "Frag", "Scaf"):
        assert got[name].value == pytest.approx(1)
    for name, measure in got.items():
        assert measure.n == 30 and measure.floor is None
        if name.startswith(("W1", "KL", "NSPDK")):
            assert measure.value == pytest.approx(0, abs=1e-12), name


def test_every_number_has_its_definition_and_n():
    measures, (histogram,) = compare(describe(MADE), describe(REAL), describe(REAL[:24]))
    got = by_name(measures)
    for name, measure in got.items():
        assert measure.definition == DEFINITIONS[name.split()[0]]
        assert measure.n == 24
        assert (measure.value is None) == (measure.missing is not None)
        assert measure.n_reference in (None, 30)
        assert measure.floor is not None or measure.value is None
    assert {name.split()[0] for name in got} == set(DEFINITIONS)
    assert got["W1 size"].floor == pytest.approx(0, abs=1e-12) and got["W1 size"].value > 1
    assert histogram.n == {"generated": 24, "held out": 30} and histogram.n_reference == 24
    assert sum(histogram.shares["generated"]) == pytest.approx(1)
    # Everything held out is in the training sample; of what was made, a quarter is.
    assert histogram.shares["held out"][-1] == 1
    assert histogram.shares["generated"][-1] == pytest.approx(1 / 4)
    json.dumps([m.to_json() for m in measures] + [histogram.to_json()], allow_nan=False)


def test_properties_are_shares_of_both_sets():
    found = {h.name: h for h in properties(describe(["CC", "CCO", "c1ccccc1"]), describe(["C=O", "C#N"]))}
    # There are no ring sizes of molecules without rings.
    assert list(found) == ["size", "rings", "elements", "bonds", "logP", "QED", "SA", "weight"]
    for histogram in found.values():
        assert histogram.n == {"generated": 3, "held out": 2} and histogram.definition
        kinds = isinstance(histogram.bins[0], str)
        for shares in histogram.shares.values():
            assert sum(shares) == pytest.approx(1)
            assert len(shares) == len(histogram.bins) - (not kinds)
    assert found["size"].bins == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert found["size"].shares["generated"][:2] == pytest.approx([1 / 3, 1 / 3])
    assert found["size"].shares["held out"][0] == 1
    assert found["elements"].bins == ["C", "O", "N"]
    assert found["elements"].shares["generated"] == pytest.approx([10 / 11, 1 / 11, 0])
    assert found["bonds"].shares["generated"] == pytest.approx([3 / 9, 0, 0, 6 / 9])
    json.dumps([h.to_json() for h in found.values()], allow_nan=False)
    with pytest.raises(ValueError, match="empty"):
        properties(describe([]), describe(["C"]))


def test_one_molecule_beside_itself_can_be_shown():
    for histogram in properties(describe(["C"]), describe(["C"])):
        assert histogram.shares["generated"] == histogram.shares["held out"]


def test_what_processing_costs_stands_beside_the_floor():
    """Stereo changes the names of scaffolds, and nothing that is counted of atoms and bonds."""
    raw = ["C[C@H]1CC[C@@H]2CCCC[C@H]2C1", "CC1CCC2CCCCC2C1", "CCO"]
    plain = [canonical_smiles(Chem.MolFromSmiles(text)) for text in raw]
    floor = floor_of(describe(["CC", "CCC"]), describe(plain), describe(raw))
    assert floor.processed["W1 size"] == floor.processed["KL elements"] == 0 and floor.processed["SNN"] == 1
    assert floor.processed["Scaf"] < 1 and floor.values["W1 size"] > 0
    assert "IntDiv1" not in floor.processed and floor_of(describe(["C"]), describe(plain)).processed == {}
    measures, _ = compare(describe(MADE), describe(plain), describe(["CC", "CCC"]), floor)
    assert by_name(measures)["Scaf"].processed == floor.processed["Scaf"]


def test_by_hand():
    got = by_name(compare(describe(["CC", "CCC"]), describe(["CO", "C"]))[0])
    assert got["W1 size"].value == 1
    assert got["W1 elements"].value == pytest.approx(1 / 3)
    assert got["W1 bonds"].value == 0
    for name in ("Scaf", "W1 ring sizes", "KL ring sizes"):
        assert got[name].value is None and got[name].missing == "a side has none"


def test_ring_sizes_and_compositions_by_hand():
    made, real = describe(["C1CC1CC1CCCCCCCCC1", "CNO"]), describe(["C1CCC1", "OCO"])
    (rings,) = [h for h in properties(made, real) if h.name == "ring sizes"]
    assert rings.bins == ["3", "4", "5", "6", "7", "8+"]
    assert rings.shares == {"generated": [0.5, 0, 0, 0, 0, 0.5], "held out": [0, 1, 0, 0, 0, 0]}
    got = by_name(compare(made, real)[0])
    assert got["W1 ring sizes"].value == pytest.approx((1 + 6) / 2)
    # Carbons 14 and 1 beside 4 and 1, nitrogens 0 and 1 beside none, oxygens 0 and 1 beside 0 and 2.
    assert got["W1 composition"].value == pytest.approx(10 / 2 + 1 / 2 + 1 / 2)


def test_nothing_valid_and_nothing_to_compare_with():
    measures, histograms = compare(describe([]), describe(REAL))
    assert histograms == [] and all(m.value is None and m.missing == "no valid molecules" for m in measures)
    with pytest.raises(ValueError, match="no reference"):
        compare(describe(REAL), describe([]))


def test_one_atom_each():
    got = by_name(compare(describe(["C"]), describe(["N"]), describe(["O"]))[0])
    assert got["W1 bonds"].value is None and got["KL elements"].value > 0


def test_filters_say_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHGEN_DATA", str(tmp_path))
    assert "moses/mcf.csv and moses/wehi_pains.csv" in patterns.missing()
    got = by_name(compare(describe(MADE), describe(REAL))[0])
    assert got["Filters"].value is None and "mcf.csv" in got["Filters"].missing


def test_screening_changes_no_filter(data):
    """RDKit's NCI molecules break many patterns; every pattern is also asked the slow way."""
    from rdkit import RDConfig, rdBase

    with open(os.path.join(RDConfig.RDDataDir, "NCI", "first_5K.smi")) as lines, rdBase.BlockLogs():
        mols = [Chem.MolFromSmiles(line.split()[0]) for line in list(lines)[::25]]
    mols = [Chem.AddHs(mol) for mol in mols if mol is not None]
    known = patterns.load()
    found = [known.any_in(mol) for mol in mols]
    assert found == [any(mol.HasSubstructMatch(query) for query in known.queries) for mol in mols]
    assert 0 < sum(found) < len(found)


@pytest.mark.parametrize(
    ("smiles", "passes"),
    [
        ("CCO", True),
        ("C1CCCCCCC1", False),  # a ring of eight
        ("C1CCCCCC1", True),
        ("CC(=O)[O-]", False),
        ("CB(O)O", False),
        ("CCBr", False),  # MCF: alkyl halide
        ("C=CC#N", False),
    ],
)
def test_filters(data, smiles, passes):
    assert patterns.passes(Chem.MolFromSmiles(smiles)) is passes


def test_what_the_codec_drops(data):
    """Processed beside raw ZINC250k: no metric here sees stereo, so all are as of equal sets."""
    from graphgen.molecules import datasets
    from graphgen.molecules.records import read_records

    path = os.path.join(os.environ["GRAPHGEN_DATA"], datasets.SOURCES["zinc250k"].file)
    raw = [record.text for record in read_records(path)][::1_000]
    processed = [canonical_smiles(Chem.MolFromSmiles(text)) for text in raw]
    assert any("@" in text for text in raw) and not any("@" in text for text in processed)
    got = by_name(compare(describe(processed), describe(raw))[0])
    assert got["SNN"].value == pytest.approx(1) and got["NSPDK-MMD"].value == pytest.approx(0, abs=1e-12)
    # SA and the SMILES of fragments and scaffolds read stereo marks.
    for name, measure in got.items():
        if name.startswith(("W1", "KL")) and not name.endswith("SA"):
            assert measure.value == pytest.approx(0, abs=1e-9), name
    assert got["W1 SA"].value > 0
