import pytest
import torch

from graphgen.fields import PairField
from graphgen.ops import Pairs

TYPES = 4


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


def a_field(seed=0, **settings):
    torch.manual_seed(seed)
    small = {"hidden": 16, "pair_hidden": 8, "layers": 2, "heads": 2}
    return PairField(TYPES, TYPES, **{**small, **settings})


def molecules(sizes, seed=0):
    """ptr, atoms and pairs, half of them bonded."""
    generator = torch.Generator().manual_seed(seed)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    atoms = torch.randint(0, TYPES, (int(ptr[-1]),), generator=generator)
    count = int(Pairs(ptr).pair_ptr[-1])
    pairs = torch.randint(0, 8, (count,), generator=generator).clamp(max=4).remainder(4)
    return ptr, atoms, pairs


def square(pairs, n):
    """[n, n, ...] of one molecule's pairs."""
    out = pairs.new_zeros(n, n, *pairs.shape[1:])
    i, j = torch.triu_indices(n, n, 1)
    out[i, j] = out[j, i] = pairs
    return out


def upper(matrix):
    i, j = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[i, j]


def test_renamed_atoms_have_renamed_results():
    field, (ptr, atoms, pairs), t = a_field(), molecules([7]), torch.tensor([0.4])
    of_atoms, of_pairs = field(t, atoms, pairs, ptr)
    assert of_atoms.shape == (7, TYPES) and of_pairs.shape == (21, 4)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    renamed = field(t, atoms[order], upper(square(pairs, 7)[order][:, order]), ptr)
    assert torch.allclose(renamed[0], of_atoms[order], atol=1e-5)
    assert torch.allclose(renamed[1], upper(square(of_pairs, 7)[order][:, order]), atol=1e-5)
    assert not torch.allclose(of_atoms, of_atoms[order], atol=1e-2)


def test_molecules_do_not_see_their_batch_mates_or_the_padding():
    field, sizes = a_field(), [3, 9, 1, 0, 6]
    ptr, atoms, pairs = molecules(sizes)
    t = torch.linspace(0.1, 0.9, 5)
    of_atoms, of_pairs = field(t, atoms, pairs, ptr)
    begins = Pairs(ptr).pair_ptr.tolist()
    for g, n in enumerate(sizes):
        mine, own = slice(int(ptr[g]), int(ptr[g + 1])), slice(begins[g], begins[g + 1])
        alone = field(t[g : g + 1], atoms[mine], pairs[own], torch.tensor([0, n]))
        assert torch.allclose(alone[0], of_atoms[mine], atol=1e-5)
        assert torch.allclose(alone[1], of_pairs[own], atol=1e-5)
    assert [x.shape for x in field(t[:0], atoms[:0], pairs[:0], ptr[:1])] == [(0, TYPES), (0, 4)]


def test_features_are_bond_orders_pieces_and_walks():
    """C-C=C and an atom apart: of walkers on the middle half go to each end, and all at the ends to the middle; a mask
    is no bond."""
    field, pairs = a_field(pair_states=5, walk=3), Pairs(torch.tensor([0, 4]))
    kinds = upper(torch.tensor([[0, 1, 4, 0], [1, 0, 2, 0], [4, 2, 0, 4], [0, 0, 4, 0]]))
    of_atoms, of_pairs = field._features(kinds, pairs)
    assert torch.equal(4 * of_atoms[:, 0], torch.tensor([1.0, 3.0, 2.0, 0.0]))
    assert torch.equal(of_atoms[:, 1], torch.tensor([0.75, 0.75, 0.75, 0.25]))
    assert of_pairs[:, 0].tolist() == [1, 1, 0, 1, 0, 0]
    walker = torch.tensor([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    root = torch.tensor([1, 2, 1, 1]).sqrt()
    for k in range(1, 4):
        power = torch.linalg.matrix_power(walker, k)
        assert torch.allclose(of_atoms[:, k + 1], power.diagonal())
        assert torch.allclose(of_pairs[:, k], upper(root[:, None] * power / root))


def test_certain_probabilities_are_labels():
    field, (ptr, atoms, pairs) = a_field(), molecules([5, 0, 3])
    t = torch.tensor([0.2, 0.3, 0.4])
    certain = torch.nn.functional.one_hot(atoms, TYPES).float(), torch.nn.functional.one_hot(pairs, 4).float()
    for one, other in zip(field(t, atoms, pairs, ptr), field(t, *certain, ptr), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_it_sees_time_size_labels_and_bonds():
    field = a_field()
    ptr, atoms, pairs = molecules([5])
    base = field(torch.tensor([0.2]), atoms, pairs, ptr)
    others = [field(torch.tensor([0.7]), atoms, pairs, ptr), field(torch.tensor([0.2]), (atoms + 1) % 4, pairs, ptr)]
    bond = torch.arange(len(pairs)) == 3  # between atoms 0 and 4
    others.append(field(torch.tensor([0.2]), atoms, torch.where(bond, (pairs + 1) % 4, pairs), ptr))
    for other in others:
        for one, two in zip(base, other, strict=True):
            assert bool(((one - two).abs().amax(1) > 1e-4).all())  # everywhere, for attention reaches all


def test_gradients_are_finite_and_reach_every_weight():
    field = a_field()
    ptr, atoms, pairs = molecules([4, 0, 1, 6])
    of_atoms, of_pairs = field(torch.linspace(0, 1, 4), atoms, pairs, ptr)
    (of_atoms.square().sum() + of_pairs.square().sum()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads"):
        a_field(heads=3)
