import pytest
import torch

from graphgen import GraphgenError
from graphgen.candidates import Candidates

ATTEMPTS = torch.arange(6000)


def test_the_first_candidate_is_the_attempt_itself_and_no_two_share_their_noise():
    ids = Candidates(3).ids(torch.tensor([0, 1, 7]))
    assert ids.view(3, 3)[:, 0].tolist() == [0, 1, 7]
    assert len(set(ids.tolist())) == 9 and int(ids.max()) < 1 << 48


def test_the_likeliest_is_kept_among_the_good_ones():
    values = torch.tensor([-3.0, -1.0, -2.0, -5.0, -4.0, -9.0])
    good = torch.tensor([True, False, True, True, True, True])
    two = torch.arange(2)
    assert Candidates(3).pick(two, 0, values, None).tolist() == [1, 1]
    assert Candidates(3, reject=True).pick(two, 0, values, good).tolist() == [2, 1]
    assert Candidates(3, "first", reject=True).pick(two, 0, None, ~good).tolist() == [1, 0]
    assert Candidates(3, "first").pick(two, 0, values, None).tolist() == [0, 0]


def test_weighted_draws_follow_the_probabilities():
    share = torch.tensor([0.5, 0.2, 0.3])
    drawn = Candidates(3, "weighted").pick(ATTEMPTS, 5, share.log().repeat(len(ATTEMPTS)), None)
    found = torch.bincount(drawn, minlength=3) / len(ATTEMPTS)
    assert torch.allclose(found, share, atol=4 * (0.25 / len(ATTEMPTS)) ** 0.5)
    few = Candidates(3, "weighted").pick(ATTEMPTS[40:50], 5, share.log().repeat(10), None)
    assert torch.equal(few, drawn[40:50])  # whatever the batch
    other = Candidates(3, "weighted").pick(ATTEMPTS, 6, share.log().repeat(len(ATTEMPTS)), None)
    assert not torch.equal(other, drawn)


@pytest.mark.parametrize("settings, complaint", [({"count": 0}, "1 or more"), ({"choose": "luck"}, "'luck'")])
def test_settings_are_checked(settings, complaint):
    with pytest.raises(GraphgenError, match=complaint):
        Candidates(**settings)
