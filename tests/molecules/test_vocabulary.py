import json

import pytest

from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary


def test_most_frequent_first_and_ties_by_name():
    graphs = [MoleculeGraph((("O", 0), ("C", 0), ("N", 1)), ()), MoleculeGraph((("C", 0), ("N", -1)), ())]
    assert Vocabulary.count(graphs).atoms == (("C", 0), ("N", -1), ("N", 1), ("O", 0))


def test_names_and_index():
    vocabulary = Vocabulary((("C", 0), ("N", 1), ("O", -1), ("N", 2)))
    assert vocabulary.names == ["C", "N+", "O-", "N+2"]
    assert len(vocabulary) == 4
    assert vocabulary.index("O", -1) == 2 and vocabulary.index("C") == 0
    with pytest.raises(KeyError, match=r"no atom type O; there are C, N\+, O-, N\+2"):
        vocabulary.index("O")


def test_json_round_trip():
    vocabulary = Vocabulary((("C", 0), ("N", 1)))
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


def test_a_type_twice_is_an_error():
    with pytest.raises(ValueError, match="twice"):
        Vocabulary((("C", 0), ("C", 0)))
