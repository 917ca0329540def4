"""Scatter and gather: every shape of index, every reduction, every derivative."""

import pytest
import torch
from draws import FLOATS, INTEGERS, SEEDS, any_float, any_integer, leaf, randint, randn
from hypothesis import given, settings
from hypothesis import strategies as st
from promises import Promises, refused, same_bits_every_time

from graphgen import ops
from graphgen.ops import reference

REDUCES = ["sum", "mean", "max", "min", "mul"]
EXTREMES = {"max": ops.scatter_max, "min": ops.scatter_min}
TWINS = {"max": reference.scatter_max, "min": reference.scatter_min}
# (shape of src, shape of the index, dim): an index of rows, of leading and of trailing dimensions, of elements.
LAID = [
    ((9,), (9,), 0),
    ((9, 1), (9,), 0),
    ((9, 20), (9,), 0),
    ((3, 9), (9,), -1),
    ((2, 9, 5), (9,), 1),
    ((2, 9, 5), (2, 9), 1),
    ((2, 9, 5), (1, 9), 1),
    ((2, 9, 5), (1, 9, 5), 1),
    ((2, 9, 5), (2, 9, 5), 1),
    ((2, 9, 5), (2, 9, 1), -2),
    ((9, 4), (9, 4), 0),
    ((4, 9), (4, 9), 1),
    ((4, 9), (4, 1), 1),
]
few = settings(max_examples=10)


# ---- values ---------------------------------------------------------------------------------------------------------


@few
@pytest.mark.parametrize("laid", LAID, ids=str)
@given(SEEDS, any_float, any_integer, st.sampled_from(REDUCES))
def test_scatter_values(assert_near, laid, seed, dtype, kind, reduce):
    shape, of_index, dim = laid
    src, index = randn(*shape, seed=seed, dtype=dtype), randint(0, 5, *of_index, seed=seed, dtype=kind)
    out = ops.scatter(src, index, dim, 6, reduce)
    assert out.dtype == dtype
    exact = reference.scatter(src.double(), index, dim, 6, reduce)
    adds = reduce in ("sum", "mean")
    assert_near(out, exact, reference.scatter(src.double().abs(), index, dim, 6, reduce) if adds else exact.abs())


@few
@pytest.mark.parametrize("laid", LAID, ids=str)
@given(SEEDS, st.sampled_from(FLOATS + INTEGERS), any_integer)
def test_scatter_extremes_and_integers(laid, seed, dtype, kind):
    shape, of_index, dim = laid
    src = randint(-2, 3, *shape, seed=seed, dtype=dtype)  # few values, so many ties
    index = randint(0, 5, *of_index, seed=seed + 1, dtype=kind)
    for reduce, extreme in EXTREMES.items():
        for a, b in zip(extreme(src, index, dim), TWINS[reduce](src, index, dim), strict=True):
            assert torch.equal(a, b)
    if dtype in INTEGERS:
        for reduce in REDUCES:
            found = ops.scatter(src, index, dim, reduce=reduce)
            assert found.dtype == dtype
            assert torch.equal(found, reference.scatter(src, index, dim, reduce=reduce))


@few
@pytest.mark.parametrize("laid", LAID, ids=str)
@given(SEEDS, st.sampled_from(FLOATS + INTEGERS), any_integer, st.integers(0, 12))
def test_gather_values(laid, seed, dtype, kind, length):
    shape, of_index, dim = laid
    along = 0 if len(of_index) == 1 else dim % len(shape)
    of_index = tuple(length if at == along else size for at, size in enumerate(of_index))
    src = randint(-9, 9, *shape, seed=seed, dtype=dtype)
    index = randint(0, 9, *of_index, seed=seed, dtype=kind)
    assert torch.equal(ops.gather(src, index, dim), reference.gather(src, index, dim))


@pytest.mark.parametrize("laid", LAID, ids=str)
def test_as_torch_scatter_where_that_is_right(laid):
    torch_scatter = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
    shape, of_index, dim = laid
    src, index = randn(*shape, seed=1), randint(0, 5, *of_index, seed=2)
    for reduce in REDUCES:
        if reduce == "mean" and 1 in of_index:
            continue  # it counts along the wrong dimension where the index is broadcast
        torch.testing.assert_close(
            ops.scatter(src, index, dim, 6, reduce), torch_scatter.scatter(src, index, dim, dim_size=6, reduce=reduce)
        )


def test_what_is_documented_of_ties_empties_and_sizes():
    src, index = torch.tensor([4.0, 7.0, 7.0, 1.0]), torch.tensor([2, 0, 0, 2])
    assert ops.scatter(src, index).tolist() == [14, 0, 5]
    assert ops.scatter(src, index, dim_size=4, reduce="mul").tolist() == [49, 1, 4, 1]
    values, arg = ops.scatter_max(src, index, dim_size=4)
    assert values.tolist() == [7, 0, 4, 0] and arg.tolist() == [1, 4, 0, 4]
    assert ops.scatter_min(src, index)[1].tolist() == [1, 4, 3]
    assert ops.scatter(torch.tensor([-3, -4]), torch.tensor([0, 0]), reduce="mean").tolist() == [-4]
    nan = torch.tensor([1.0, torch.nan, torch.nan, 2.0])
    assert ops.scatter_max(nan, torch.zeros(4, dtype=torch.int64))[1].tolist() == [1]


@pytest.mark.parametrize("shape", [(0, 3), (0,), (0, 0, 0, 16)])
def test_nothing(shape):
    src, index = torch.zeros(shape, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for reduce in REDUCES:
        assert ops.scatter(src, index, 0, reduce=reduce).shape == shape
        out = ops.scatter(src, index, 0, 2, reduce)
        assert torch.equal(out, torch.full((2, *shape[1:]), float(reduce == "mul")))
        assert torch.autograd.grad(out.sum(), src)[0].shape == shape
        batch_of_none = torch.vmap(lambda s, r=reduce: ops.scatter(s, index, 0, 2, r))(torch.zeros(0, *shape))
        assert batch_of_none.shape == (0, 2, *shape[1:])
    assert ops.scatter_max(src, index, 0, 2)[1].eq(0).all()
    assert ops.gather(torch.zeros(4, *shape[1:]), index).shape == shape
    none = torch.zeros(5, 0)
    assert ops.scatter(none, torch.zeros(5, 0, dtype=torch.int64), 0, 3).shape == (3, 0)
    assert ops.gather(none, torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_other_memory_layouts_and_dtypes():
    wide, index = randn(6, 18, seed=1), randint(0, 4, 9, seed=2)
    for src in (wide.t()[::2], wide[:1].expand(9, 18), -wide[:, ::2].t()):
        for reduce in REDUCES:
            torch.testing.assert_close(
                ops.scatter(src, index, 0, 4, reduce), ops.scatter(src.clone(), index, 0, 4, reduce), rtol=0, atol=0
            )
        torch.testing.assert_close(ops.gather(src, index), src[index])
    strided = torch.stack([index, index + 100], 1)[:, 0]
    expanded = index.unsqueeze(1).expand(9, 18)
    src = wide.t()[:9].repeat(1, 3)
    assert torch.equal(ops.scatter(src, strided, 0), ops.scatter(src, index, 0))
    assert torch.equal(ops.scatter(src, expanded, 0), ops.scatter(src, index, 0))
    half = src.half()
    for reduce in REDUCES:
        for at in (index, randint(0, 4, 9, 18, seed=3)):
            torch.testing.assert_close(
                ops.scatter(half, at, 0, 4, reduce), reference.scatter(half, at, 0, 4, reduce), rtol=4e-3, atol=4e-3
            )
    assert torch.equal(ops.gather(half, index), half[index])
    assert torch.equal(ops.gather(half, randint(0, 9, 5, 18, seed=4)), half.gather(0, randint(0, 9, 5, 18, seed=4)))


# ---- derivatives ----------------------------------------------------------------------------------------------------

ROWS, ELEMENTS = torch.tensor([0, 3, 1, 0, 3, 3, 0]), randint(0, 5, 7, 4, seed=9)
BATCHED = randint(0, 3, 2, 3, seed=8)


def with_zeros(seed):
    src = randn(7, 4, seed=seed)
    src[0] = src[6, 1] = src[2, 2] = 0
    return src.requires_grad_()


CASES = {
    **{f"rows {r}": (lambda s, r=r: ops.scatter(s, ROWS, 0, 5, r), (leaf(7, 4, seed=1),)) for r in REDUCES},
    **{f"elements {r}": (lambda s, r=r: ops.scatter(s, ELEMENTS, 0, 5, r), (leaf(7, 4, seed=2),)) for r in REDUCES},
    **{f"batched {r}": (lambda s, r=r: ops.scatter(s, BATCHED, 1, 4, r), (leaf(2, 3, 2, seed=3),)) for r in REDUCES},
    "rows mul with zeros": (lambda s: ops.scatter(s, ROWS, 0, 5, "mul"), (with_zeros(4),)),
    "elements mul with zeros": (lambda s: ops.scatter(s, ELEMENTS, 0, 5, "mul"), (with_zeros(5),)),
    "argmax": (lambda s: ops.scatter_max(s, ROWS, 0, 5)[0], (leaf(7, 4, seed=6),)),
    "argmin": (lambda s: ops.scatter_min(s, ELEMENTS, 0, 5)[0], (leaf(7, 4, seed=7),)),
    "gather rows": (lambda s: ops.gather(s, ROWS), (leaf(4, 4, seed=8),)),
    "gather elements": (lambda s: ops.gather(s, ELEMENTS), (leaf(5, 4, seed=9),)),
    "gather batched": (lambda s: ops.gather(s, BATCHED, 1), (leaf(2, 4, 2, seed=10),)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


class TestEveryCase(Promises):
    pass


@pytest.mark.parametrize("of_index", [(3, 7), (3, 7, 4)], ids=["rows", "elements"])
def test_vmap_of_the_index(of_index):
    src, index = randn(7, 4, seed=3), randint(0, 4, *of_index, seed=1)
    for reduce in REDUCES:
        found = torch.vmap(lambda at, r=reduce: ops.scatter(src, at, 0, 4, r))(index)
        torch.testing.assert_close(found, torch.stack([ops.scatter(src, at, 0, 4, reduce) for at in index]))
    values, arg = torch.vmap(lambda at: ops.scatter_max(src, at, 0, 4))(index)
    for k, at in enumerate(index):
        assert torch.equal(values[k], ops.scatter_max(src, at, 0, 4)[0])
        assert torch.equal(arg[k], ops.scatter_max(src, at, 0, 4)[1])
    found = torch.vmap(lambda at: ops.gather(src, at))(index)
    assert torch.equal(found, torch.stack([ops.gather(src, at) for at in index]))


@pytest.mark.parametrize("kind", INTEGERS)
def test_opcheck(kind):
    src, rows, elements, space = leaf(7, 4, seed=1), ROWS.to(kind), ELEMENTS.to(kind), torch.ops.graphgen
    for reduce in REDUCES:
        torch.library.opcheck(space.scatter_rows.default, (src, elements, 5, reduce))
    torch.library.opcheck(space.scatter_rows.default, (src, rows, 5, "mean"))
    torch.library.opcheck(space.scatter_max.default, (src, rows, 5))
    torch.library.opcheck(space.scatter_min.default, (src, elements, 5))
    torch.library.opcheck(space.gather.default, (src, rows))
    torch.library.opcheck(space.gather.default, (src, elements))
    torch.library.opcheck(space.group_rows.default, (rows, 5))
    torch.library.opcheck(space.element_keys.default, (elements, 5))


# ---- grouped by a sort, as on CUDA ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("index", [ROWS, ELEMENTS], ids=["rows", "elements"])
def test_segments_in_the_order_of_the_index_are_the_same_bits(dtype, index):
    """Where there is no scatter kernel, rows are grouped and segments reduced; this does the same with the CPU's."""
    src, space = (3 * randn(7, 4, seed=1)).to(dtype), torch.ops.graphgen
    rows, keys, size = (src, index, 5) if index.dim() == 1 else (src.reshape(28, 1), space.element_keys(index, 5), 20)
    ptr, order = space.group_rows(keys, size)
    assert torch.equal(order, keys.sort(stable=True).indices)
    assert torch.equal(ptr, torch.searchsorted(keys.sort().values, torch.arange(size + 1)))
    for reduce in REDUCES:
        found = space.segment_reduce(rows, ptr, reduce, order).reshape(5, 4)
        assert torch.equal(found, ops.scatter(src, index, 0, 5, reduce))
    values, arg = space.segment_max(rows, ptr, order)
    expected = ops.scatter_max(src, index, 0, 5)
    assert torch.equal(values.reshape(5, 4), expected[0])
    assert torch.equal(arg.reshape(5, 4) // (1 if index.dim() == 1 else 4), expected[1])


# ---- the same bits, errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_any_number_of_threads_gives_the_same_bits(threads, dtype):
    src = (5 * randn(20000, 7, seed=1)).to(dtype)
    rows, elements = randint(0, 3000, 20000, seed=2), randint(0, 3000, 20000, 7, seed=3)

    def everything():
        for index in (rows, elements):
            for reduce in REDUCES:
                yield ops.scatter(src, index, 0, 3001, reduce)
            yield from ops.scatter_max(src, index, 0, 3001)
        yield ops.gather(src, rows)

    same_bits_every_time(threads, everything, runs=6)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("bad", [-1, 4, 10**6])
def test_an_index_out_of_range_is_an_index_error_by_position_and_value(kind, bad):
    src = torch.zeros(5, 2)
    rows, elements = torch.tensor([0, 1, bad, 3, 0], dtype=kind), torch.zeros(5, 2, dtype=kind)
    elements[3, 1] = bad
    for call in (ops.scatter, ops.scatter_max, ops.scatter_min):
        with pytest.raises(IndexError, match=rf"position 2 has {bad}, which is not in \[0, 4\)"):
            call(src, rows, 0, 4)
        with pytest.raises(IndexError, match=rf"position \[3, 1\] has {bad}, which is not in \[0, 4\)"):
            call(src, elements, 0, 4)
    with pytest.raises(IndexError, match=rf"position 2 has {bad}, which is not in \[0, 4\)"):
        ops.gather(src[:4], rows)
    with pytest.raises(IndexError, match=rf"position \[3, 1\] has {bad}"):
        ops.gather(src[:4], elements)
    with pytest.raises(IndexError, match=rf"position 2 has {bad}"):
        torch.ops.graphgen.group_rows(rows, 4)
    with pytest.raises(IndexError, match="which is not in"):
        torch.ops.graphgen.element_keys(elements, 4)
    with pytest.raises(IndexError):
        ops.scatter(src, torch.full((5,), -1), 0)
    with pytest.raises(IndexError):
        ops.gather(src[:0], rows)


def test_what_does_not_fit_is_refused():
    src, index = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    calls = [
        lambda: ops.scatter(src, index.float(), 0),
        lambda: ops.scatter(src, index[:4], 0),
        lambda: ops.scatter(src, index, 1),
        lambda: ops.scatter(src, index, 2),
        lambda: ops.scatter(src, index, 0, -1),
        lambda: ops.scatter(src, index, 0, reduce="median"),
        lambda: ops.scatter(src, index.view(5, 1, 1), 0),
        lambda: ops.scatter(src, index.view(5, 1).expand(5, 3), 0),
        lambda: ops.scatter(torch.tensor(1.0), index, 0),
        lambda: ops.scatter(src, torch.tensor(0), 0),
        lambda: ops.scatter_max(src, index.to("meta"), 0),
        lambda: ops.gather(src, index.bool()),
        lambda: ops.gather(src, index.view(1, 5), 0),
    ]
    refused(calls, "scatter|gather")
