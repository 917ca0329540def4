"""Reductions of ragged rows: all of them, all dtypes, where an extreme comes from, and every derivative."""

import pytest
import torch
from draws import FLOATS, INTEGERS, LAYOUTS, SEEDS, any_float, any_integer, leaf, ragged, randint, randn
from hypothesis import given, settings
from hypothesis import strategies as st
from promises import Promises, compiles_whole, same_bits_every_time
from torch.autograd import gradcheck, gradgradcheck

from graphgen import _C, ops
from graphgen.ops import reference

REDUCES = ["sum", "mean", "max", "min", "mul"]
EXTREMES = {"max": ops.segment_max, "min": ops.segment_min}
TWINS = {"max": reference.segment_max, "min": reference.segment_min}
# Around the widths of the vectors of each instruction set, and a tile of four with a rest.
FEATURES = st.sampled_from([0, 1, 3, 8, 15, 17, 33, 64, 70])
few = settings(max_examples=15)


# ---- values ---------------------------------------------------------------------------------------------------------


@few
@pytest.mark.parametrize("reduce", REDUCES)
@given(SEEDS, FEATURES, any_float, any_integer, LAYOUTS)
def test_values(assert_near, lay_out, reduce, seed, features, dtype, index, layout):
    ptr, rows = ragged(seed, index)
    src = lay_out(randn(rows, features, seed=seed, dtype=dtype), layout)
    out = ops.segment_reduce(src, ptr, reduce)
    assert out.dtype == dtype
    exact = reference.segment_reduce(src.double(), ptr, reduce)
    adds = reduce in ("sum", "mean")
    assert_near(out, exact, reference.segment_reduce(src.double().abs(), ptr, reduce) if adds else exact.abs())


@few
@pytest.mark.parametrize("reduce", REDUCES)
@given(SEEDS, FEATURES, any_integer, any_integer, LAYOUTS)
def test_values_of_integers(lay_out, reduce, seed, features, dtype, index, layout):
    ptr, rows = ragged(seed, index)
    src = lay_out(randint(-4, 5, rows, features, seed=seed, dtype=dtype), layout) if layout != "strided" else None
    if src is None:
        src = randint(-4, 5, 2 * rows, features, seed=seed, dtype=dtype)[::2]
    out = ops.segment_reduce(src, ptr, reduce)
    assert out.dtype == dtype
    assert torch.equal(out, reference.segment_reduce(src, ptr, reduce))


@few
@pytest.mark.parametrize("reduce", EXTREMES)
@given(SEEDS, FEATURES, st.sampled_from(FLOATS + INTEGERS), any_integer)
def test_where_an_extreme_comes_from(reduce, seed, features, dtype, index):
    ptr, rows = ragged(seed, index)
    src = randint(-2, 3, rows, features, seed=seed, dtype=dtype)  # few values, so many ties
    values, arg = EXTREMES[reduce](src, ptr)
    exact, where = TWINS[reduce](src, ptr)
    assert arg.dtype == torch.int64 and values.dtype == dtype
    assert torch.equal(values, exact) and torch.equal(arg, where)
    assert torch.equal(ops.segment_reduce(src, ptr, reduce), values)


def test_what_is_documented_of_ties_empties_floors_and_nan():
    src = torch.tensor([[1.0, -7.0], [3.0, 2.0], [3.0, torch.nan], [2.0, 9.0], [torch.nan, torch.nan]])
    ptr = torch.tensor([0, 4, 4, 5])
    values, arg = ops.segment_max(src, ptr)
    assert torch.equal(arg, torch.tensor([[1, 2], [5, 5], [4, 4]]))
    assert values[0, 0] == 3 and values[0, 1].isnan() and torch.equal(values[1], torch.zeros(2))
    assert torch.equal(ops.segment_min(src, ptr)[1], torch.tensor([[0, 2], [5, 5], [4, 4]]))
    empty = {reduce: float(ops.segment_reduce(src, ptr, reduce)[1, 0]) for reduce in REDUCES}
    assert empty == {"sum": 0.0, "mean": 0.0, "max": 0.0, "min": 0.0, "mul": 1.0}
    whole = torch.tensor([-3, -4, 3, 4])
    assert ops.segment_reduce(whole, torch.tensor([0, 2, 4]), "mean").tolist() == [-4, 3]
    least = torch.iinfo(torch.int32).min
    extreme = torch.tensor([[least], [least]], dtype=torch.int32)
    assert ops.segment_max(extreme, torch.tensor([0, 2]))[1].tolist() == [[0]]
    infinite = torch.full((2, 1), -torch.inf)
    assert ops.segment_max(infinite, torch.tensor([0, 2]))[1].tolist() == [[0]]


def test_integers_wrap_around():
    top = torch.tensor([[torch.iinfo(torch.int32).max]] * 2, dtype=torch.int32).expand(2, 20)
    assert torch.equal(ops.segment_reduce(top, torch.tensor([0, 2])), top.sum(0, keepdim=True, dtype=torch.int32))


@pytest.mark.parametrize("shape", [(0, 0, 0, 16), (0,), (5, 0), (0, 3)])
@pytest.mark.parametrize("ptr", [[0], [0, 0], [0, 0, 0]])
def test_nothing(shape, ptr):
    ptr = torch.tensor(ptr)
    src = torch.zeros(shape, requires_grad=True)
    expected = (ptr.numel() - 1, *shape[1:])
    for reduce in REDUCES:
        out = ops.segment_reduce(src, ptr, reduce)
        assert out.shape == expected
        assert torch.equal(out, torch.full(expected, float(reduce == "mul")))
        assert torch.autograd.grad(out.sum(), src)[0].shape == shape
        for batch in (3, 0):
            found = torch.vmap(lambda s, r=reduce: ops.segment_reduce(s, ptr, r))(torch.zeros(batch, *shape))
            assert found.shape == (batch, *expected)
    for extreme in EXTREMES.values():
        values, arg = extreme(src, ptr)
        assert values.shape == arg.shape == expected and bool((arg == shape[0]).all())
        assert [part.shape for part in torch.vmap(lambda s, f=extreme: f(s, ptr))(torch.zeros(0, *shape))] == [
            (0, *expected)
        ] * 2


def test_more_dimensions_and_other_dtypes():
    src, ptr = randn(7, 2, 3, seed=0), torch.tensor([0, 3, 3, 7])
    values, arg = ops.segment_max(src, ptr)
    flat = ops.segment_max(src.flatten(1), ptr)
    assert torch.equal(values, flat[0].view(3, 2, 3)) and torch.equal(arg, flat[1].view(3, 2, 3))
    assert ops.segment_max(src[:, 0, 0], ptr)[1].shape == (3,)
    half = src.half()
    for reduce in REDUCES:
        assert torch.equal(ops.segment_reduce(half, ptr, reduce), reference.segment_reduce(half, ptr, reduce))
    assert torch.equal(ops.segment_max(half, ptr)[1], reference.segment_max(half, ptr)[1])


# ---- derivatives ----------------------------------------------------------------------------------------------------

PTR = torch.tensor([1, 3, 3, 8])
ORDER = torch.tensor([3, 1, 8, 0, 6, 2, 7, 5, 4])


def with_zeros():
    """One and two zeros in a segment: the product of the others is not a quotient."""
    src = randn(9, 3, seed=1)
    src[1, 0] = src[4, 1] = src[6, 1] = src[7, 2] = 0
    return src.requires_grad_()


CASES = {
    **{reduce: (lambda s, r=reduce: ops.segment_reduce(s, PTR, r), (leaf(9, 3, seed=2),)) for reduce in REDUCES},
    "mul with zeros": (lambda s: ops.segment_reduce(s, PTR, "mul"), (with_zeros(),)),
    "argmax": (lambda s: ops.segment_max(s, PTR)[0], (leaf(9, 3, seed=3),)),
    "argmin": (lambda s: ops.segment_min(s, PTR)[0], (leaf(9, 3, seed=4),)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


class TestEveryCase(Promises):
    pass


@pytest.mark.parametrize("reduce", REDUCES)
def test_derivatives_in_another_order(reduce):
    def function(src):
        return torch.ops.graphgen.segment_reduce(src, PTR, reduce, ORDER)

    src = leaf(9, 3, seed=5)
    assert torch.equal(function(src), ops.segment_reduce(src[ORDER], PTR, reduce))
    assert gradcheck(function, (src,))
    assert gradgradcheck(function, (src,))
    compiles_whole(function, (src,))


def test_third_derivatives_of_a_product():
    src = leaf(4, 2, seed=6)

    def curvature(s):
        product = ops.segment_reduce(s, torch.tensor([0, 4]), "mul").sum()
        (slope,) = torch.autograd.grad(product, s, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), s, create_graph=True)[0]

    assert gradcheck(curvature, (src,))


def test_the_gradient_of_a_maximum_goes_to_the_first_row_that_has_it():
    src = torch.tensor([[2.0], [5.0], [5.0], [1.0]], requires_grad=True)
    for out in (ops.segment_max(src, torch.tensor([0, 4]))[0], ops.segment_reduce(src, torch.tensor([0, 4]), "max")):
        assert torch.autograd.grad(out.sum(), src)[0].flatten().tolist() == [0, 1, 0, 0]


def test_vmap_of_boundaries():
    x, boundaries = randn(7, 3, seed=1), torch.tensor([[0, 2, 7], [1, 1, 4]])
    for extreme in EXTREMES.values():
        found = torch.vmap(lambda ptr, f=extreme: f(x, ptr))(boundaries)
        for k, ptr in enumerate(boundaries):
            for a, b in zip(found, extreme(x, ptr), strict=True):
                assert torch.equal(a[k], b)


@pytest.mark.parametrize("index", INTEGERS)
def test_opcheck(index):
    src, ptr, order = leaf(9, 3, seed=1), PTR.to(index), ORDER.to(index)
    arg = torch.tensor([[0, 9, 2], [8, 1, 1]])
    space = torch.ops.graphgen
    for reduce in REDUCES:
        torch.library.opcheck(space.segment_reduce.default, (src, ptr, reduce, order))
    torch.library.opcheck(space.segment_reduce.default, (src, ptr, "max"))
    torch.library.opcheck(space.segment_max.default, (src, ptr, order))
    torch.library.opcheck(space.segment_min.default, (src, ptr))
    torch.library.opcheck(space.segment_broadcast.default, (leaf(3, 3, seed=2), ptr, 9, "mean", order))
    torch.library.opcheck(space.segment_others.default, (src, ptr, order))
    torch.library.opcheck(space.pick.default, (src, arg))
    torch.library.opcheck(space.place.default, (leaf(2, 3, seed=3), arg, 9))


def test_callable_from_torchscript():
    @torch.jit.script
    def both(src: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        values, _ = torch.ops.graphgen.segment_max(src, ptr)
        return torch.ops.graphgen.segment_reduce(src, ptr, "mul") + values

    src = leaf(9, 3, seed=1)
    expected = ops.segment_reduce(src, PTR, "mul") + ops.segment_reduce(src, PTR, "max")
    assert torch.equal(both(src, PTR), expected)
    torch.testing.assert_close(torch.autograd.grad(both(src, PTR).sum(), src), torch.autograd.grad(expected.sum(), src))


# ---- the gradient of a trace ----------------------------------------------------------------------------------------


def trace_gradients(graph, aggregate):
    """How far the gradient of v.Jv of one message layer is from that of the dense layer."""
    n, f = graph.num_nodes, 4
    x, v, weight = randn(n, f, seed=1), randn(n, f, seed=2), leaf(f, f, seed=3)
    dense = torch.zeros(n, n, dtype=x.dtype)
    dense.index_put_((graph.target, graph.col), torch.ones(graph.num_edges, dtype=x.dtype), accumulate=True)

    def gradient(aggregate):
        at = x.clone().requires_grad_()
        value = torch.tanh(aggregate(torch.tanh(at @ weight)) + at)
        (pulled,) = torch.autograd.grad(value, at, v, create_graph=True)
        return torch.autograd.grad((pulled * v).sum(), weight)[0]

    expected = gradient(lambda h: dense @ h)
    return float((gradient(aggregate) - expected).abs().max() / expected.abs().max())


def test_the_gradient_of_a_hutchinson_trace_is_the_dense_one(make_graph):
    graph = make_graph(13, sizes=[6, 7])
    for aggregate in (
        lambda h: ops.segment_reduce(h[graph.col], graph.rowptr),
        lambda h: ops.segment_reduce(ops.gather(h, graph.col), graph.rowptr),
        lambda h: ops.scatter(h[graph.col], graph.target, 0, graph.num_nodes),
        lambda h: ops.neighbor_reduce(h, graph),
    ):
        assert trace_gradients(graph, aggregate) < 1e-11


def test_torch_scatter_gets_that_gradient_wrong_in_silence(make_graph):
    torch_scatter = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
    graph = make_graph(13, sizes=[6, 7])
    assert trace_gradients(graph, lambda h: torch_scatter.segment_csr(h[graph.col], graph.rowptr)) > 0.05


# ---- the same bits, errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_any_number_of_threads_gives_the_same_bits(threads, dtype):
    src = randint(-9, 9, 20000, 37, seed=1, dtype=dtype) if dtype in INTEGERS else randn(20000, 37, seed=1, dtype=dtype)
    ptr = torch.cat([torch.tensor([0]), randint(0, 20001, 3000, seed=2).sort().values, torch.tensor([20000])])
    order = torch.randperm(20000, generator=torch.Generator().manual_seed(3))

    def everything():
        for reduce in REDUCES:
            yield ops.segment_reduce(src, ptr, reduce)
        yield from ops.segment_max(src, ptr)
        yield from torch.ops.graphgen.segment_min(src, ptr, order)
        yield torch.ops.graphgen.segment_others(src, ptr, order)

    same_bits_every_time(threads, everything, runs=6)


def test_what_does_not_fit_is_refused():
    x, ptr = torch.zeros(5, 2), torch.tensor([0, 2, 5])
    for extreme in EXTREMES.values():
        with pytest.raises(IndexError, match="not a range within 5 rows"):
            extreme(x, torch.tensor([0, 6]))
        with pytest.raises(ValueError, match="segment_m"):
            extreme(x, ptr.float())
    with pytest.raises(ValueError, match=r"segment_reduce: reduce must be one of .*'median'"):
        ops.segment_reduce(x, ptr, "median")
    with pytest.raises(ValueError, match="segment_broadcast: reduce"):
        ops.segment_broadcast(x[:2], ptr, 5, "max")
    with pytest.raises(IndexError, match=r"order: position 1 has 5, which is not in \[0, 5\)"):
        torch.ops.graphgen.segment_reduce(x, ptr, "sum", torch.tensor([0, 5, 1, 2, 3]))
    with pytest.raises(ValueError, match="order must be"):
        torch.ops.graphgen.segment_reduce(x, ptr, "sum", torch.tensor([0, 1]))


def test_the_engine_keeps_integers_to_the_ops_on_rows():
    one = torch.ones(1, dtype=torch.int32)
    assert _C.activate([one.data_ptr(), 0, 0, 0, one.data_ptr(), 0, 0, 0], 1, 0, 0, 3, 0, 1, 0) == 1
    assert "dtype 3" in _C.message()
    assert _C.pick(one.data_ptr(), one.data_ptr(), one.data_ptr(), 1, 1, 0, 5, 0, 1, 0) == 1
    assert "int32 or int64" in _C.message()
