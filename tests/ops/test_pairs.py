"""The ops on all pairs of atoms, against plain torch and against what they promise of a batch."""

import pytest
import torch

from graphgen import ops
from graphgen.ops import reference

SIZES = ([3, 9, 1, 0, 6, 2], [], [0], [1], [1, 0, 1], [2], [40, 23])
HEADS = 3


def complete(sizes):
    return ops.Pairs(torch.tensor([0, *sizes]).cumsum(0))


def drawn(*shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def norm_linear_case(pairs, dtype, seed=0):
    return "norm_linear", drawn((len(pairs.of_atom), 13), (13, 21), (21,), dtype=dtype, seed=seed), ()


def norm_mlp_case(pairs, dtype, seed=0):
    shapes = (len(pairs.of_atom), 24), (24, 17), (17,), (17, 24), (24,)
    return "norm_mlp", drawn(*shapes, dtype=dtype, seed=seed), ()


def pair_attention_case(pairs, dtype, seed=0):
    shapes = (len(pairs.of_atom), 9 * HEADS), (len(pairs.first), 2 * HEADS)
    return "pair_attention", drawn(*shapes, dtype=dtype, seed=seed), (pairs, HEADS)


def pair_update_case(pairs, dtype, seed=0):
    atoms, count = len(pairs.of_atom), len(pairs.first)
    shapes = (count, 13), (atoms, 17), (count, HEADS), (13, 17), (HEADS, 17), (17, 13), (13,)
    return "pair_update", drawn(*shapes, dtype=dtype, seed=seed), (pairs,)


def pair_walks_case(pairs, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return "pair_walks", [torch.rand(len(pairs.first), generator=generator, dtype=dtype)], (pairs, 5)


CASES = (norm_linear_case, norm_mlp_case, pair_attention_case, pair_update_case, pair_walks_case)


def parts(values):
    return values if isinstance(values, tuple) else (values,)


def close(found, expected, dtype):
    bound = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 5e-2}[dtype]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        assert torch.allclose(one.to(other.dtype), other, rtol=0, atol=bound * max(1.0, largest))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradients_are_those_of_plain_torch(case, sizes, dtype):
    name, tensors, rest = case(complete(sizes), torch.float64)
    mine = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    plain = [tensor.detach().double().requires_grad_() for tensor in mine]
    found, expected = parts(getattr(ops, name)(*mine, *rest)), parts(getattr(reference, name)(*plain, *rest))
    close(found, expected, dtype)
    with torch.no_grad():
        again = parts(getattr(ops, name)(*mine, *rest))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True)) or name == "pair_walks"
    if dtype == torch.bfloat16:
        return  # without a kernel on the CPU
    along = drawn(*(value.shape for value in found), seed=1)
    close(
        torch.autograd.grad(found, mine, [part.to(dtype) for part in along]),
        torch.autograd.grad(expected, plain, along),
        dtype,
    )


@pytest.mark.parametrize("case", CASES)
def test_first_and_second_derivatives(case):
    name, tensors, rest = case(complete([3, 1, 2]), torch.float64)
    for tensor in tensors:
        tensor.requires_grad_()
    if name == "pair_walks":
        tensors = [(tensors[0].detach() + 1.0).requires_grad_()]  # degrees above 1, where the bound on them is smooth

    def op(*inputs):
        return getattr(ops, name)(*inputs, *rest)

    assert torch.autograd.gradcheck(op, tensors)
    assert torch.autograd.gradgradcheck(op, tensors, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_views_are_read_as_they_are(case):
    name, tensors, rest = case(complete([4, 3]), torch.float32)
    apart = [torch.stack((tensor, tensor + 1), -1)[..., 0] for tensor in tensors]
    assert any(not view.is_contiguous() for view in apart)
    found, expected = (parts(getattr(ops, name)(*given, *rest)) for given in (apart, tensors))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("threads_used", [1, 2])
def test_a_molecules_bits_do_not_depend_on_its_batch(threads, threads_used):
    sizes = [5, 9, 1, 30, 0, 7] * 20
    pairs = complete(sizes)
    qkv, bias_gate, state, ends, own, of_logits, weight, bias = drawn(
        (len(pairs.of_atom), 72), (len(pairs.first), 6), (len(pairs.first), 48), (len(pairs.of_atom), 40),
        (48, 40), (HEADS, 40), (40, 48), (48,), dtype=torch.float32,
    )  # fmt: skip

    def layer(pairs, atoms, count):
        out, logits = ops.pair_attention(qkv[atoms], bias_gate[count], pairs, HEADS)
        after = ops.pair_update(state[count], ends[atoms], logits, own, of_logits, weight, bias, pairs)
        walks = ops.pair_walks(bias_gate[count][:, 0].sigmoid(), pairs, 4)
        return out, logits, after, ops.norm_linear(out, weight[:24]), *walks

    with threads(threads_used):
        together = layer(pairs, slice(None), slice(None))
    per_atom = (0, 3, 4)
    with threads(1):
        for g in (0, 3, 5, 61):
            atoms, count = (slice(int(ptr[g]), int(ptr[g + 1])) for ptr in (pairs.ptr, pairs.pair_ptr))
            alone = layer(complete([sizes[g]]), atoms, count)
            for k, (one, all_of_them) in enumerate(zip(alone, together, strict=True)):
                assert torch.equal(one, all_of_them[atoms if k in per_atom else count])


def test_renamed_atoms_have_renamed_results():
    n = 6
    qkv, square = drawn((n, 9 * HEADS), (n, n, 2 * HEADS))
    square = square + square.transpose(0, 1)
    i, j = torch.triu_indices(n, n, 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    out, logits = ops.pair_attention(qkv, square[i, j], complete([n]), HEADS)
    renamed, renamed_logits = ops.pair_attention(qkv[order], square[order[i], order[j]], complete([n]), HEADS)
    assert torch.allclose(renamed, out[order])
    dense = logits.new_zeros(n, n, HEADS)
    dense[i, j] = dense[j, i] = logits
    assert torch.allclose(renamed_logits, dense[order[i], order[j]])


def test_pairs_are_all_of_a_molecule_in_order():
    pairs = complete([3, 0, 1, 2])
    assert pairs.first.tolist() == [0, 0, 1, 4] and pairs.second.tolist() == [1, 2, 2, 5]
    assert pairs.pair_ptr.tolist() == [0, 3, 3, 3, 4] and pairs.of_pair.tolist() == [0, 0, 0, 3]


def search(n, bonds):
    """[n, n] whether a way leads from i to j, by looking from each atom onwards."""
    reached = torch.eye(n, dtype=torch.bool)
    for start in range(n):
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for there in [b if a == here else a for a, b in bonds if here in (a, b)]:
                if not reached[start, there]:
                    reached[start, there] = True
                    waiting.append(there)
    return reached


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_connected_atoms_are_those_that_a_search_reaches(sizes):
    pairs = complete(sizes)
    generator = torch.Generator().manual_seed(1)
    scarce = 1.0 / pairs.ptr.diff().clamp(min=2)[pairs.of_pair]
    bonded = torch.rand(len(pairs.first), generator=generator) < scarce
    reached = search(len(pairs.of_atom), torch.stack((pairs.first, pairs.second), 1)[bonded].tolist())
    found = ops.pair_connected(bonded, pairs)
    assert torch.equal(found, reached[pairs.first, pairs.second])
    assert sum(sizes) < 20 or (bool(found.any()) and not bool(found.all()))


def test_the_ends_of_a_chain_are_connected():
    for n in (2, 3, 4, 5, 8, 9, 10, 33):
        pairs = complete([n, 1])
        chain = pairs.second == pairs.first + 1
        assert bool(ops.pair_connected(chain, pairs).all())
        cut = chain & (pairs.first != n // 2 - 1)
        assert torch.equal(ops.pair_connected(cut, pairs), (pairs.second < n // 2) | (pairs.first >= n // 2))


def test_what_does_not_fit_is_refused():
    pairs = complete([3])
    x, weight = drawn((3, 4), (5, 6))
    with pytest.raises(ValueError, match=r"norm_linear: expected \[4, 'any'\]"):
        ops.norm_linear(x, weight)
    with pytest.raises(ValueError, match="at most 512"):
        ops.norm_linear(*drawn((2, 600), (600, 3)))
    with pytest.raises(ValueError, match=r"norm_mlp: expected \[7, 4\] of torch.float64, got \[4, 7\]"):
        ops.norm_mlp(x, *drawn((4, 7), (7,), (4, 7), (4,)))
    with pytest.raises(ValueError, match="multiple of 2 heads"):
        ops.pair_attention(*drawn((3, 9), (3, 4)), pairs, 2)
    with pytest.raises(ValueError, match=r"biases and gates \[3, 2\]"):
        ops.pair_attention(*drawn((3, 9), (4, 2)), pairs, 1)
    with pytest.raises(ValueError, match="a number for each of 3 pairs"):
        ops.pair_walks(torch.ones(4), pairs, 2)
    with pytest.raises(ValueError, match="a truth for each of 3 pairs"):
        ops.pair_connected(torch.ones(4, dtype=torch.bool), pairs)
    with pytest.raises(IndexError, match="molecule 1 has 256 atoms"):
        large = complete([2, 256])
        ops.pair_walks(torch.ones(len(large.first)), large, 2)
    with pytest.raises(ValueError, match="of torch.float64, got .* of torch.float32"):
        ops.norm_linear(x, torch.ones(4, 2))
