from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from graphgen import ops
from graphgen.ops import reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
INDICES = [torch.int32, torch.int64]
# Around vectors of 4, 8 and 16 lanes, four of them, and the 128 signs of a block.
FEATURES = st.sampled_from([0, 1, 2, 3, 5, 8, 9, 16, 17, 64, 130])
SIZES = st.lists(st.integers(0, 9), max_size=6)
SEEDS = st.integers(0, 10**6)
LAYOUTS = st.sampled_from(["contiguous", "transposed", "strided", "expanded"])
PROBES = ["rademacher", "normal"]
PTR = torch.tensor([0, 3, 3, 10, 11])


def randn(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leaf(*shape, seed):
    return randn(*shape, seed=seed).requires_grad_()


def bounds(sizes, index=torch.int64):
    return torch.tensor([0, *sizes]).cumsum(0).to(index)


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SIZES, FEATURES, SEEDS, st.sampled_from(DTYPES), st.sampled_from(INDICES), LAYOUTS, st.integers(0, 2))
def test_values(assert_near, lay_out, sizes, features, seed, dtype, index, layout, outside):
    ptr = bounds(sizes, index) + outside  # rows before the first graph and behind the last
    rows = sum(sizes) + 2 * outside
    a, b = (lay_out(randn(rows, features, seed=seed + k, dtype=dtype), layout) for k in (0, 1))
    scale = randn(len(sizes), seed=seed, dtype=dtype)
    out = ops.graph_dot(a, b, ptr)
    assert out.dtype == dtype
    size = reference.graph_dot(a.double().abs(), b.double().abs(), ptr)
    assert_near(out, reference.graph_dot(a.double(), b.double(), ptr), size)
    scaled = ops.graph_scale(scale, a, ptr)
    assert scaled.dtype == dtype
    assert_near(scaled, reference.graph_scale(scale.double(), a.double(), ptr))
    many_a, many_b = torch.stack([a, b, a]), torch.stack([b, a])
    assert torch.equal(
        ops.graph_dot(many_a, many_b, ptr),
        torch.stack([torch.stack([ops.graph_dot(one, two, ptr) for two in many_b]) for one in many_a]),
    )
    weights = randn(2, 3, len(sizes), seed=seed, dtype=dtype)
    size = reference.graph_scale(weights.double().abs(), many_a.double().abs(), ptr)
    expected = reference.graph_scale(weights.double(), many_a.double(), ptr)
    assert_near(ops.graph_scale(weights, many_a, ptr), expected, size)


def test_a_dot_product_is_what_it_says():
    a, b = randn(11, 4, seed=1), randn(11, 4, seed=2)
    expected = torch.stack([(a[i:j] * b[i:j]).sum() for i, j in pairwise(PTR)])
    torch.testing.assert_close(ops.graph_dot(a, b, PTR), expected)
    scaled = ops.graph_scale(expected, a, PTR)
    torch.testing.assert_close(scaled[3:10], expected[2] * a[3:10])


def test_what_is_not_finite_stays_in_its_graph():
    a, b = randn(11, 4, seed=1), randn(11, 4, seed=2)
    a[4, 1] = torch.nan
    assert ops.graph_dot(a, b, PTR).isnan().tolist() == [False, False, True, False]


def test_other_dtypes_get_the_reference():
    a, b = randn(11, 4, seed=1).half(), randn(11, 4, seed=2).half()
    assert torch.equal(ops.graph_dot(a, b, PTR), reference.graph_dot(a, b, PTR))


@pytest.mark.parametrize(("sizes", "features"), [([], 3), ([0, 0], 3), ([2, 1], 0), ([], 0)])
def test_nothing(sizes, features):
    ptr = bounds(sizes)
    a = randn(sum(sizes), features, seed=1).requires_grad_()
    out = ops.graph_dot(a, a, ptr)
    assert out.tolist() == [0.0] * len(sizes)
    assert torch.autograd.grad(out.sum(), a)[0].shape == a.shape
    assert ops.graph_dot(torch.empty(0, *a.shape), torch.empty(2, *a.shape), ptr).shape == (0, 2, len(sizes))
    summed = ops.graph_scale(torch.empty(2, 0, len(sizes)), torch.empty(0, *a.shape), ptr)
    assert torch.equal(summed, torch.zeros(2, *a.shape))


# ---- derivatives ----------------------------------------------------------------------------------------------------

CASES = {
    "dot": (lambda a, b: ops.graph_dot(a, b, PTR), (11, 2), (11, 2)),
    "dots": (lambda a, b: ops.graph_dot(a, b, PTR), (3, 11, 2), (2, 11, 2)),
    "scale": (lambda s, a: ops.graph_scale(s, a, PTR), (4,), (11, 2)),
    "combine": (lambda s, a: ops.graph_scale(s, a, PTR), (3, 2, 4), (2, 11, 2)),
}


@pytest.fixture(params=CASES)
def case(request):
    function, *shapes = CASES[request.param]
    return function, tuple(leaf(*shape, seed=k) for k, shape in enumerate(shapes))


def test_first_derivatives(case):
    assert gradcheck(*case, check_forward_ad=True, check_batched_grad=True)


def test_second_derivatives(case):
    assert gradgradcheck(*case, check_fwd_over_rev=True)


# ---- torch.func, torch.library, torch.compile -----------------------------------------------------------------------


def test_jvp_vjp_and_vmap_against_loops(case):
    function, leaves = case
    at = tuple(leaf.detach() for leaf in leaves)
    along = tuple(randn(*x.shape, seed=20 + k) for k, x in enumerate(at))
    value, pushed = torch.func.jvp(function, at, along)
    same, pull = torch.func.vjp(function, *at)
    assert torch.equal(value, same)
    cotangent = randn(*value.shape, seed=30)
    pulled = sum((x * y).sum() for x, y in zip(pull(cotangent), along, strict=True))
    torch.testing.assert_close((cotangent * pushed).sum(), pulled, rtol=1e-12, atol=1e-12)
    for k in range(len(at)):
        many = randn(5, *at[k].shape, seed=40 + k)

        def of_one(x, k=k):
            return function(*at[:k], x, *at[k + 1 :])

        looped = torch.stack([of_one(x) for x in many])
        assert torch.equal(torch.vmap(of_one)(many), looped)
        assert torch.equal(torch.vmap(of_one, in_dims=-1, out_dims=-1)(many.movedim(0, -1)).movedim(-1, 0), looped)
        assert torch.vmap(of_one)(many[:0]).shape == (0, *value.shape)
        torch.testing.assert_close(torch.func.jacfwd(of_one)(at[k]), torch.func.jacrev(of_one)(at[k]))
    both = tuple(randn(5, *x.shape, seed=50 + k) for k, x in enumerate(at))
    looped = torch.stack([function(*each) for each in zip(*both, strict=True)])
    assert torch.equal(torch.vmap(function)(*both), looped)


@pytest.mark.parametrize("index", INDICES)
def test_opcheck(index):
    ptr, registered = PTR.to(index), torch.ops.graphgen
    one, many = leaf(11, 2, seed=1), leaf(3, 11, 2, seed=2)
    torch.library.opcheck(registered.graph_dot.default, (one, leaf(11, 2, seed=3), ptr))
    torch.library.opcheck(registered.graph_dot.default, (many, leaf(2, 11, 2, seed=4), ptr))
    torch.library.opcheck(registered.graph_scale.default, (leaf(4, seed=5), one, ptr))
    torch.library.opcheck(registered.graph_scale.default, (leaf(2, 3, 4, seed=6), many, ptr))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["dots", "combine"])
def test_compiled_whole_with_its_gradient(name, backend):
    function, *shapes = CASES[name]
    leaves = tuple(leaf(*shape, seed=k) for k, shape in enumerate(shapes))
    torch.compiler.reset()
    layer = lambda x, *rest: function(2 * x, *rest).sin()  # noqa: E731
    out = torch.compile(layer, fullgraph=True, backend=backend)(*leaves)
    expected = layer(*leaves)
    torch.testing.assert_close(out, expected)
    grad = randn(*out.shape, seed=9)
    torch.testing.assert_close(torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad))


# ---- the same bits --------------------------------------------------------------------------------------------------


def everything(a, b, ptr):
    scale = ops.graph_dot(a, b, ptr)
    many = torch.stack([a, b])
    gram = ops.graph_dot(many, many, ptr)
    return [scale, gram], [ops.graph_scale(scale, a, ptr), ops.graph_scale(gram, many, ptr)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_threads_and_batch_mates_do_not_change_a_bit(threads, dtype):
    sizes = [13] * 150 + [0, 700, 1]
    ptr = bounds(sizes)
    a, b = randn(sum(sizes), 37, seed=1, dtype=dtype), randn(sum(sizes), 37, seed=2, dtype=dtype)
    with threads(1):
        numbers, rows = everything(a, b, ptr)
    for run in range(6):
        with threads(1 + run % 3):
            again = everything(a, b, ptr)
            assert all(torch.equal(x, y) for x, y in zip([*numbers, *rows], [*again[0], *again[1]], strict=True))
    for g in (0, 7, 150, 151, 152):
        nodes = slice(int(ptr[g]), int(ptr[g + 1]))
        alone = everything(a[nodes], b[nodes], ptr[g : g + 2] - ptr[g])
        assert all(torch.equal(x[..., 0], y[..., g]) for x, y in zip(alone[0], numbers, strict=True))
        assert all(torch.equal(x, y[..., nodes, :]) for x, y in zip(alone[1], rows, strict=True))


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_graph_that_leaves_the_rows_is_refused():
    a = torch.zeros(5, 2)
    for ptr in ([0, 6], [3, 2, 5], [-1, 5]):
        with pytest.raises(IndexError, match="ptr"):
            ops.graph_dot(a, a, torch.tensor(ptr))
        with pytest.raises(IndexError, match="ptr"):
            ops.graph_scale(torch.zeros(len(ptr) - 1), a, torch.tensor(ptr))


def test_shapes_and_numbers_that_do_not_fit_are_refused():
    a, ptr = torch.zeros(5, 2), torch.tensor([0, 2, 5])
    for x, y in ((a, a[:4]), (a, a.double()), (a[None], a), (a[0], a[0])):
        with pytest.raises(ValueError, match="graph_dot"):
            ops.graph_dot(x, y, ptr)
    for bad in (ptr.float(), ptr[None], ptr[:0], ptr.to("meta")):
        with pytest.raises(ValueError, match="ptr"):
            ops.graph_dot(a, a, bad)
    for scale, x in ((torch.zeros(3), a), (torch.zeros(2).double(), a), (torch.zeros(2, 2, 2), a[None])):
        with pytest.raises(ValueError, match="graph_scale"):
            ops.graph_scale(scale, x, ptr)
