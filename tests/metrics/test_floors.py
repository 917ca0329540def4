"""Values to hold a result against."""

import pytest
import torch

from graphgen.metrics.floors import ideal_uniqueness


def test_qm9():
    assert ideal_uniqueness(120_803, 10_000) == pytest.approx(0.960, abs=5e-4)


def test_agrees_with_drawing():
    drawn = torch.randint(2_000, (3_000,), generator=torch.Generator().manual_seed(0))
    assert drawn.unique().numel() / 3_000 == pytest.approx(ideal_uniqueness(2_000, 3_000), abs=0.01)


@pytest.mark.parametrize(("population", "draws"), [(0, 10), (10, 0)])
def test_refuses_nothing(population, draws):
    with pytest.raises(ValueError, match="positive"):
        ideal_uniqueness(population, draws)
