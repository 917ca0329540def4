"""One visit finds what the parts find, and survives what RDKit does not."""

import json

import pytest

pytest.importorskip("rdkit")

from graphgen.metrics import describe, judge, literature
from graphgen.metrics.repair import repaired
from graphgen.metrics.strict import classify
from graphgen.molecules.codec import decode


def judged(*arguments):
    request = json.loads(json.dumps(judge.item(*arguments)))
    return judge.judgement(json.loads(json.dumps(judge.visit(*request))))


@pytest.mark.parametrize("smiles", ["CCO", "C[N+](=O)[O-]", "CN(=O)=O", "CC(C)(C)(C)C", "CC.C", "nonsense"])
def test_a_smiles(smiles):
    found = judged(smiles, "grd")
    verdict = classify(smiles)
    assert found.verdict == verdict
    assert found.gdss == literature.gdss_valid(smiles)
    assert found.repaired == repaired(smiles, verdict)
    assert (found.facts is None) == (not verdict.strict)
    if verdict.strict:
        assert found.facts == json.loads(json.dumps(describe.facts(verdict.smiles, False)))


def test_a_graph_is_judged_as_drawn():
    graph = ([("C", 0), ("O", 0), ("N", 1)], [(0, 1, 0), (0, 2, 1)])
    assert judged(list(graph), "g").verdict == classify(decode(*graph))
    assert judged(list(graph)) == judge.Judgement(classify(decode(*graph)))


def test_no_molecule_keeps_its_reason():
    found = judged(None, "grd", "diverged: step 3")
    assert found.verdict.reason == "diverged: step 3" and not found.gdss and found.facts is None
    assert found.repaired.verdict == found.verdict and judged("", "gr").verdict.reason == "no molecule"


def test_one_that_ends_its_process_is_an_attempt_like_others(monkeypatch):
    found = judge.judgement("crashed RDKit")
    assert found.verdict.reason == "crashed RDKit" and not found.repaired.changed

    def fails(*arguments):
        raise RuntimeError("Pre-condition Violation")

    monkeypatch.setattr(judge, "examine", fails)
    assert judged("CCO", "grd").verdict.reason == "RDKit failed: RuntimeError"


def test_of_known_molecules_only_the_description_is_found():
    found = judged("OCC", "k")
    assert found.facts == json.loads(json.dumps(describe.facts("OCC", False)))
