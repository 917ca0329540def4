"""Label metrics against numbers worked out by hand."""

import math

import pytest
import torch

from graphgen.metrics.labels import kl_atom_types, label_recovery, nats_per_atom, top_recovery


def test_recovery():
    assert label_recovery(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 1])) == 0.5
    with pytest.raises(ValueError, match="as many labels"):
        label_recovery(torch.tensor([0]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="at least one"):
        label_recovery(torch.tensor([]), torch.tensor([]))


def test_top_recovery_by_hand():
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [0.2, 0.3, 0.5]])
    truth = torch.tensor([0, 1, 2, -1])  # the last has a label that the model does not know
    assert [top_recovery(probability, truth, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 0.75]
    with pytest.raises(ValueError, match="as many rows"):
        top_recovery(probability, truth[:2], 1)


def test_kl_by_hand():
    truth, labels = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0])
    # With one count added: truth 3, 2, 1 of 6; labels 4, 1, 1 of 6.
    expected = 3 / 6 * math.log(3 / 4) + 2 / 6 * math.log(2 / 1)
    assert kl_atom_types(truth, labels, 3) == pytest.approx(expected)
    assert kl_atom_types(truth, truth, 3) == 0
    assert kl_atom_types(truth, labels, 3) != pytest.approx(kl_atom_types(labels, truth, 3))


def test_kl_counts_shares_not_places():
    assert kl_atom_types(torch.tensor([0, 1]), torch.tensor([1, 0]), 2) == 0


def test_nats_of_a_uniform_guess():
    sizes = torch.tensor([2, 5, 5])
    mean, error = nats_per_atom(sizes * math.log(0.25), sizes)
    assert mean == pytest.approx(math.log(4))
    assert error == pytest.approx(0, abs=1e-6)


def test_mean_is_over_atoms_and_the_error_over_molecules():
    # Molecule losses 1 and 6 over 1 and 3 atoms: mean 7 / 4, residuals -3/4 and 3/4.
    mean, error = nats_per_atom(-torch.tensor([1.0, 6.0]), torch.tensor([1, 3]))
    assert mean == 7 / 4
    assert error == pytest.approx(math.sqrt(2 * 2 * (3 / 4) ** 2) / 4)


def test_one_molecule_has_no_error_and_no_atoms_no_mean():
    mean, error = nats_per_atom(torch.tensor([-3.0]), torch.tensor([2]))
    assert mean == 1.5 and math.isnan(error)
    with pytest.raises(ValueError, match="no atoms"):
        nats_per_atom(torch.zeros(1), torch.zeros(1, dtype=torch.int64))
