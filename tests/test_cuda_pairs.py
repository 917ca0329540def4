"""Ops on all pairs of atoms on CUDA: against float64, with poisoned outputs, at sizes around tiles, packs and warps."""

import os

import pytest
import torch

from graphgen import _C, ops
from graphgen.ops import reference

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and _C.built_with_cuda()), reason="needs a CUDA device and an engine built for it"
)
DEVICE = "cuda"
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2.0**-7}
MOLECULES = [[], [0], [1], [2, 1], [3, 0, 1, 9, 0, 38, 2], [65, 4]]


def randn(*shape, seed, dtype, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(DEVICE, dtype)


def pairs_of(sizes):
    return ops.Pairs(torch.tensor([0, *sizes]).cumsum(0).to(DEVICE))


def poison() -> None:
    """Leave NaN in the memory that the next outputs get, of any size up to some MB."""
    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
        return  # nothing is kept for the next output, and memory checkers see to what is unwritten
    held = [torch.full((1 << power,), torch.nan, device=DEVICE) for power in range(4, 21) for _ in range(3)]
    del held


def check(ours: torch.Tensor, exact: torch.Tensor, scale: float = 1.0) -> None:
    assert ours.shape == exact.shape
    if exact.numel() == 0:
        return
    room = TOLERANCE[ours.dtype] * max(scale, float(exact.abs().max()))
    error = float((ours.double() - exact).abs().nan_to_num(torch.inf).max())
    assert error <= room, f"off by up to {error:.3g} of {float(exact.abs().max()):.3g}"


def compare(op, exact_op, *leaves) -> None:
    """Values, and the gradients of every input, for gradients of every output that differ from row to row."""
    leaves = [leaf.requires_grad_() for leaf in leaves]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    poison()
    found, exact = op(*leaves), exact_op(*wide)
    found, exact = (out if isinstance(out, tuple) else (out,) for out in (found, exact))
    for ours, theirs in zip(found, exact, strict=True):
        check(ours.detach(), theirs.detach())
    grads = [randn(*out.shape, seed=50 + k, dtype=out.dtype) for k, out in enumerate(found)]
    poison()
    pulled = torch.autograd.grad(found, leaves, grads)
    for ours, theirs in zip(pulled, torch.autograd.grad(exact, wide, [g.double() for g in grads]), strict=True):
        # A sum over all rows, of which bfloat16 has rounded the terms, may itself be small.
        check(ours, theirs, 1.0 if len(ours) == len(leaves[0]) else max(1.0, len(leaves[0]) ** 0.5))


def dense_parts(rows, inner, outer, dtype):
    x = randn(rows, inner, seed=1, dtype=dtype) + 1
    first = randn(inner, outer, seed=2, dtype=dtype, scale=inner**-0.5)
    second = randn(outer, inner, seed=3, dtype=dtype, scale=outer**-0.5)
    return x, first, randn(outer, seed=4, dtype=dtype), second, randn(inner, seed=5, dtype=dtype)


def update_parts(pairs, width, heads, dtype):
    count = len(pairs.first)
    return (
        randn(count, width, seed=1, dtype=dtype),
        randn(int(pairs.ptr[-1]), width, seed=2, dtype=dtype),
        randn(count, heads, seed=3, dtype=dtype),
        randn(width, width, seed=4, dtype=dtype, scale=width**-0.5),
        randn(heads, width, seed=5, dtype=dtype, scale=heads**-0.5),
        randn(width, width, seed=6, dtype=dtype, scale=width**-0.5),
        randn(width, seed=7, dtype=dtype),
    )


def attention_parts(pairs, width, heads, dtype):
    return (
        randn(int(pairs.ptr[-1]), 3 * width, seed=1, dtype=dtype),
        randn(len(pairs.first), 2 * heads, seed=2, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("inner", "outer"), [(1, 1), (3, 7), (16, 5), (33, 32), (48, 16), (64, 65), (96, 288), (130, 64), (300, 33)]
)
def test_normal_rows_in_products(dtype, inner, outer):
    for rows in [0, 1, 31, 33, 130]:
        x, first, first_bias, second, bias = dense_parts(rows, inner, outer, dtype)
        compare(ops.norm_linear, reference.norm_linear, x, first)
        compare(ops.norm_linear, reference.norm_linear, x, first, first_bias)
        compare(ops.norm_mlp, reference.norm_mlp, x, first, first_bias, second, bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "heads"), [(1, 1), (7, 3), (48, 8), (66, 2), (130, 40)])
@pytest.mark.parametrize("sizes", MOLECULES)
def test_pair_update(dtype, width, heads, sizes):
    pairs = pairs_of(sizes)
    compare(
        lambda *parts: ops.pair_update(*parts, pairs),
        lambda *parts: reference.pair_update(*parts, pairs),
        *update_parts(pairs, width, heads, dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "heads"), [(1, 1), (6, 2), (96, 8), (130, 2), (48, 1)])
@pytest.mark.parametrize("sizes", MOLECULES)
def test_pair_attention(dtype, width, heads, sizes):
    pairs = pairs_of(sizes)
    compare(
        lambda *parts: ops.pair_attention(*parts, pairs, heads),
        lambda *parts: reference.pair_attention(*parts, pairs, heads),
        *attention_parts(pairs, width, heads, dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [0, 1, 6])
@pytest.mark.parametrize("sizes", MOLECULES)
def test_pair_walks(dtype, length, sizes):
    pairs = pairs_of(sizes)
    bonded = (randn(len(pairs.first), seed=1, dtype=torch.float64) > 0.5).to(dtype)
    poison()
    for ours, theirs in zip(
        ops.pair_walks(bonded, pairs, length), reference.pair_walks(bonded.double(), pairs, length), strict=True
    ):
        check(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sharp_attention_does_not_overflow(dtype):
    """Of whole numbers and heads of width 4, so that the logits, some hundreds apart, have no error of their own."""
    pairs = pairs_of([9, 40])
    query_key_value, bias_gate = (part.double().mul(8).round() for part in attention_parts(pairs, 12, 3, dtype))
    for ours, theirs in zip(
        ops.pair_attention(query_key_value.to(dtype), bias_gate.to(dtype), pairs, 3),
        reference.pair_attention(query_key_value, bias_gate, pairs, 3),
        strict=True,
    ):
        check(ours, theirs)


def test_molecules_too_large_are_no_numbers():
    sizes, dtype = [4, 300, 3], torch.float32
    pairs = pairs_of(sizes)
    small = torch.arange(307, device=DEVICE) < 4
    small[304:] = True
    parts = [part.requires_grad_() for part in attention_parts(pairs, 8, 2, dtype)]
    out = ops.pair_attention(*parts, pairs, 2)
    for ours, theirs in zip(out, reference.pair_attention(*(p.double() for p in parts), pairs, 2), strict=True):
        check(ours.detach(), theirs.detach())
    to_atoms, to_pairs = torch.autograd.grad(out[0].sum() + out[1].sum(), parts)
    returns, walks = ops.pair_walks((parts[1][:, 0].detach() > 0).to(dtype), pairs, 3)
    for rows in (to_atoms, returns):
        assert torch.equal(rows.isnan().all(1), ~small) and torch.equal(rows.isnan().any(1), ~small)
    for rows in (to_pairs, walks):
        assert torch.equal(rows.isnan().all(1), ~small[pairs.first])
        assert torch.equal(rows.isnan().any(1), ~small[pairs.first])


def everything(sizes, rows, dtype):
    """Of inputs that are rows of atoms and of pairs: all results that are rows of atoms, and all that are of pairs."""
    atoms, states, logits, bias_gate = (part.detach().requires_grad_() for part in rows)
    pairs = pairs_of(sizes)
    _, first, first_bias, second, bias = dense_parts(0, 24, 70, dtype)
    own, of_logits, weight, shift = update_parts(pairs_of([]), 24, 2, dtype)[3:]
    h = ops.norm_mlp(atoms, first, first_bias, second, bias)
    wide = ops.norm_linear(h, randn(24, 72, seed=8, dtype=dtype), randn(72, seed=9, dtype=dtype))
    received, seen = ops.pair_attention(wide, bias_gate, pairs, 2)
    updated = ops.pair_update(states, received, logits + seen, own, of_logits, weight, shift, pairs)
    returns, walks = ops.pair_walks(bias_gate[:, 0].sigmoid().detach(), pairs, 4)
    pulled = torch.autograd.grad((received * received).sum() + updated.sum(), (atoms, states, logits, bias_gate))
    return [h, wide, received, returns, pulled[0]], [seen, updated, walks, *pulled[1:]]


def rows_of(sizes, dtype):
    pairs = pairs_of(sizes)
    count = len(pairs.first)
    return (
        randn(int(pairs.ptr[-1]), 24, seed=11, dtype=dtype),
        randn(count, 24, seed=12, dtype=dtype),
        randn(count, 2, seed=13, dtype=dtype),
        randn(count, 4, seed=14, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_molecule_has_the_same_bits_alone_and_in_a_batch(dtype):
    sizes = [5, 0, 9, 1, 40, 2, 13]
    pairs, rows = pairs_of(sizes), rows_of(sizes, dtype)
    of_atoms, of_pairs = everything(sizes, rows, dtype)
    for g, size in enumerate(sizes):
        atoms = slice(int(pairs.ptr[g]), int(pairs.ptr[g + 1]))
        own = slice(int(pairs.pair_ptr[g]), int(pairs.pair_ptr[g + 1]))
        alone = everything([size], (rows[0][atoms], *(part[own] for part in rows[1:])), dtype)
        for where, batched, mine in ((atoms, of_atoms, alone[0]), (own, of_pairs, alone[1])):
            for a, b in zip(batched, mine, strict=True):
                assert torch.equal(a[where], b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_twenty_runs_give_the_same_bits(dtype):
    sizes = [9] * 60 + [38, 0, 100]
    rows = rows_of(sizes, dtype)
    once = [part for kind in everything(sizes, rows, dtype) for part in kind]
    for _ in range(20):
        again = [part for kind in everything(sizes, rows, dtype) for part in kind]
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_views_that_start_between_packs():
    """Sixteen-byte loads must not be used where an address does not allow them."""
    pairs = pairs_of([9, 4])
    weight = randn(24, 24, seed=1, dtype=torch.float32)
    for offset in (1, 2, 3):
        buffer = randn(13 * 24 + offset, seed=offset, dtype=torch.float32)
        x, gates = buffer[offset:].view(13, 24), randn(42, 2, seed=5, dtype=torch.float32)
        assert torch.equal(ops.norm_linear(x, weight), ops.norm_linear(x.clone(), weight))
        shifted, whole = (ops.pair_attention(part, gates, pairs, 1)[0] for part in (x, x.clone()))
        check(shifted, whole.double())
