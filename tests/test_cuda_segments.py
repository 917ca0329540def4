"""Segments, scatter and gather on CUDA: the bits of the CPU, with poisoned outputs, at sizes around every boundary."""

from __future__ import annotations

import os

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from graphgen import _C, ops

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device", allow_module_level=True)
if not _C.built_with_cuda():
    pytest.skip("this engine was built without CUDA", allow_module_level=True)

FLOATS = [torch.float32, torch.float64, torch.bfloat16]
DTYPES = [*FLOATS, torch.int32, torch.int64]
INDICES = [torch.int32, torch.int64]
REDUCES = ["sum", "mean", "max", "min", "mul"]
SPACE = torch.ops.graphgen
# Around packs of 2, 4 and 8, warps and blocks.
FEATURES = [0, 1, 3, 4, 5, 8, 9, 32, 33, 64, 129]


def poison() -> None:
    """Leave NaN in the memory that the next outputs get, of any size up to some MB."""
    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
        return  # nothing is kept for the next output, and memory checkers see to what is unwritten
    held = [torch.full((1 << power,), torch.nan, device="cuda") for power in range(4, 21) for _ in range(3)]
    del held


def values(*shape, seed, dtype):
    """Small whole numbers, of which many tie."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same_on_both(function, *tensors) -> None:
    poison()
    on_cuda, on_cpu = function(*(t.cuda() for t in tensors)), function(*tensors)
    for a, b in zip(*(out if isinstance(out, tuple) else (out,) for out in (on_cuda, on_cpu)), strict=True):
        assert a.is_cuda
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", FEATURES)
def test_segments(dtype, features):
    for k, rows in enumerate([0, 1, 33, 257, 1000]):
        bounds = torch.randint(0, rows + 1, (40,), generator=torch.Generator().manual_seed(k)).sort().values
        ptr, src = bounds.to(INDICES[k % 2]), values(rows, features, seed=k, dtype=dtype)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(k)).to(ptr.dtype)
        for reduce in REDUCES:
            same_on_both(lambda s, p, r=reduce: ops.segment_reduce(s, p, r), src, ptr)
            same_on_both(lambda s, p, o, r=reduce: SPACE.segment_reduce(s, p, r, o), src, ptr, order)
        same_on_both(ops.segment_max, src, ptr)
        same_on_both(lambda s, p, o: SPACE.segment_min(s, p, o), src, ptr, order)
        same_on_both(lambda s, p, o: SPACE.segment_others(s, p, o), src, ptr, order)
        for reduce in ("sum", "mean"):
            narrow = values(39, features, seed=k, dtype=dtype)
            same_on_both(lambda s, p, o, r=reduce, n=rows: SPACE.segment_broadcast(s, p, n, r, o), narrow, ptr, order)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", FEATURES)
def test_scatter_and_gather(dtype, features):
    for k, rows in enumerate([0, 1, 33, 1000]):
        generator = torch.Generator().manual_seed(k)
        src = values(rows, features, seed=k, dtype=dtype)
        whole = torch.randint(0, 50, (rows,), generator=generator).to(INDICES[k % 2])
        each = torch.randint(0, 50, (rows, features), generator=generator).to(INDICES[k % 2])
        for index in (whole, each):
            for reduce in REDUCES:
                same_on_both(lambda s, i, r=reduce: ops.scatter(s, i, 0, 51, r), src, index)
            same_on_both(lambda s, i: ops.scatter_max(s, i, 0, 51), src, index)
            same_on_both(lambda s, i: ops.scatter_min(s, i, 0, 51), src, index)
            same_on_both(ops.gather, values(50, features, seed=k, dtype=dtype), index)


def test_batched_columns():
    src, index = values(3, 20, 16, seed=1, dtype=torch.float32), torch.randint(0, 7, (3, 20))
    for reduce in REDUCES:
        same_on_both(lambda s, i, r=reduce: ops.scatter(s, i, 1, 8, r), src, index)
    same_on_both(lambda s, i: ops.gather(s, i, 1), src, index)


@pytest.mark.parametrize("index", INDICES)
def test_what_is_out_of_range_is_left_out(index):
    src = values(6, 5, seed=1, dtype=torch.float32)
    bad = torch.tensor([0, -1, 1, 4, 10**6, 1], dtype=index)
    kept = torch.tensor([0, 2, 5])
    poison()
    for reduce in REDUCES:
        found = ops.scatter(src.cuda(), bad.cuda(), 0, 4, reduce).cpu()
        assert torch.equal(found, ops.scatter(src[kept], bad[kept], 0, 4, reduce))
        wide = ops.scatter(src.cuda(), bad.cuda().unsqueeze(1).repeat(1, 5), 0, 4, reduce).cpu()
        assert torch.equal(wide, found)
    rows = ops.gather(src[:4].cuda(), bad.cuda()).cpu()
    assert torch.equal(rows[kept], src[bad[kept].long()])
    assert torch.equal(rows[[1, 3, 4]], torch.zeros(3, 5))
    clamped = ops.segment_reduce(src.cuda(), torch.tensor([-4, 2, 9, 3], dtype=index).cuda())
    assert torch.equal(clamped.cpu(), torch.stack([src[:2].sum(0), src[2:].sum(0), torch.zeros(5)]))


@pytest.mark.parametrize("reduce", REDUCES)
def test_derivatives(reduce):
    src = torch.randn(9, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    ptr, index = torch.tensor([1, 3, 3, 8], device="cuda"), torch.tensor([0, 3, 1, 0, 3, 3, 0, 1, 1], device="cuda")
    each = torch.randint(0, 4, (9, 3), device="cuda")
    for function in (
        lambda s: ops.segment_reduce(s, ptr, reduce),
        lambda s: ops.scatter(s, index, 0, 5, reduce),
        lambda s: ops.scatter(s, each, 0, 5, reduce),
        lambda s: ops.gather(s, index),
    ):
        assert gradcheck(function, (src,))
        assert gradgradcheck(function, (src,))


@pytest.mark.parametrize("dtype", FLOATS)
def test_twenty_runs_give_the_same_bits(dtype):
    src = torch.randn(20000, 37, device="cuda").to(dtype)
    index, each = torch.randint(0, 300, (20000,), device="cuda"), torch.randint(0, 300, (20000, 37), device="cuda")
    first = [ops.scatter(src, at, 0, 300, reduce) for at in (index, each) for reduce in REDUCES]
    for _ in range(20):
        again = [ops.scatter(src, at, 0, 300, reduce) for at in (index, each) for reduce in REDUCES]
        for a, b in zip(first, again, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
