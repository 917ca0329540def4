"""The drop-in against loops, against torch and, where that is installed, against torch_scatter itself."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from graphgen.compat import torch_scatter as ts

REDUCES = ["sum", "add", "mul", "mean", "min", "max"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64, torch.int8]
# src, index, dim: vectors along any dimension, indices that broadcast, that differ by batch, by every element.
SHAPES = {
    "vector": ([6], [6], 0),
    "rows": ([6, 3], [6], 0),
    "rows, from the back": ([6, 3], [6], -2),
    "last dimension": ([2, 6], [6], -1),
    "middle": ([2, 6, 3], [6], 1),
    "by batch": ([2, 6, 3], [2, 6], 1),
    "by column": ([6, 3], [6, 3], 0),
    "one column": ([6, 3], [6, 1], 0),
    "broadcast within": ([2, 2, 6, 3], [2, 1, 6, 3], 2),
    "broadcast outside": ([2, 6, 3], [1, 6, 1], 1),
    "no columns": ([6, 0], [6], 0),
    "no batches": ([0, 6], [0, 6], 1),
    "no rows": ([0, 3], [0], 0),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
# torch_scatter has rules of its own, or divides by zero, where there is nothing to reduce.
every_shape_with_elements = pytest.mark.parametrize(
    "shape", [pytest.param(s, id=name) for name, s in SHAPES.items() if 0 not in s[0]]
)
every_reduce = pytest.mark.parametrize("reduce", REDUCES)
SIZE = 5


def data(shape, seed=0, dtype=torch.float64, index_dtype=torch.int64):
    """(src, index, dim) with values that are exact in every dtype, ties among them."""
    sizes, index_sizes, dim = shape
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(-3, 4, sizes, generator=generator).to(dtype)
    return src, torch.randint(0, SIZE - 1, index_sizes, generator=generator, dtype=index_dtype), dim


def spread(src, index, dim):
    """The index in the shape of src, by the rule of the documentation."""
    dim %= src.dim()
    if index.dim() == 1:
        index = index.reshape([1] * dim + [-1])
    return index.reshape(list(index.shape) + [1] * (src.dim() - index.dim())).expand(src.shape)


def groups(src, index, dim, size):
    """For every place of the result the (position along dim, value) that arrive there."""
    dim %= src.dim()
    shape = list(src.shape)
    shape[dim] = size
    found = {place: [] for place in itertools.product(*map(range, shape))}
    full = spread(src, index, dim)
    for place in itertools.product(*map(range, src.shape)):
        target = (*place[:dim], int(full[place]), *place[dim + 1 :])
        found[target].append((place[dim], src[place].item()))
    return shape, found


def reduced(values, reduce, floats):
    if reduce == "mul":
        return math.prod(values)
    if not values:
        return 0
    if reduce in ("min", "max"):
        return {"min": min, "max": max}[reduce](values)
    total = sum(values)
    if reduce == "mean":
        return total / len(values) if floats else total // len(values)
    return total


def by_loops(src, index, dim, size, reduce):
    shape, found = groups(src, index, dim, size)
    floats = src.is_floating_point()
    values = [reduced([v for _, v in arrived], reduce, floats) for arrived in found.values()]
    return torch.tensor(values, dtype=torch.float64 if floats else torch.int64).reshape(shape).to(src.dtype)


def places_by_loops(src, index, dim, size, reduce):
    shape, found = groups(src, index, dim, size)
    best = {"min": min, "max": max}[reduce]
    none = src.shape[dim]
    places = []
    for arrived in found.values():
        value = best((v for _, v in arrived), default=None)
        places.append(next((at for at, v in arrived if v == value), none))
    return torch.tensor(places, dtype=torch.int64).reshape(shape)


def same(a, b, reduce=""):
    """Equal; a mean may be rounded twice."""
    room = 2 * torch.finfo(a.dtype).eps if reduce == "mean" and a.is_floating_point() else 0
    torch.testing.assert_close(a, b, rtol=room, atol=0, equal_nan=True)


def peer():
    return pytest.importorskip("torch_scatter", reason="torch_scatter is not installed (pip install graphgen[peers])")


# ---- scatter --------------------------------------------------------------------------------------------------------


@every_shape
@every_reduce
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_scatter_is_the_loop(shape, reduce, dtype, index_dtype):
    src, index, dim = data(shape, dtype=dtype, index_dtype=index_dtype)
    out = ts.scatter(src, index, dim, dim_size=SIZE, reduce=reduce)
    assert out.dtype == dtype and out.is_contiguous()
    same(out, by_loops(src, index, dim, SIZE, reduce), reduce)
    if reduce in ("min", "max"):
        values, places = getattr(ts, f"scatter_{reduce}")(src, index, dim, dim_size=SIZE)
        same(values, out)
        same(places, places_by_loops(src, index, dim, SIZE, reduce), reduce)
    else:
        same(getattr(ts, f"scatter_{reduce}")(src, index, dim, dim_size=SIZE), out)


@given(st.integers(0, 10**6), st.sampled_from(list(SHAPES.values())), st.sampled_from(REDUCES))
def test_scatter_in_any_memory_layout(seed, shape, reduce):
    src, index, dim = data(shape, seed)
    turned = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in (src, index)]
    same(ts.scatter(*turned, dim, dim_size=SIZE, reduce=reduce), by_loops(src, index, dim, SIZE, reduce), reduce)
    expanded = spread(src, index, dim)
    same(ts.scatter(src, expanded, dim, dim_size=SIZE, reduce=reduce), by_loops(src, index, dim, SIZE, reduce), reduce)
    same(
        ts.scatter(src, expanded.contiguous(), dim, dim_size=SIZE, reduce=reduce),
        by_loops(src, index, dim, SIZE, reduce),
        reduce,
    )


@every_shape
def test_without_a_size_it_is_what_the_index_needs(shape):
    src, index, dim = data(shape)
    size = int(index.max()) + 1 if index.numel() else 0
    assert ts.scatter(src, index, dim).shape[dim] == size


@every_shape
@every_reduce
def test_out_takes_part(shape, reduce):
    src, index, dim = data(shape)
    count = by_loops(torch.ones_like(src), index, dim, SIZE, "sum")
    before = torch.randint(-4, 5, count.shape, generator=torch.Generator().manual_seed(1)).double()
    alone, total = by_loops(src, index, dim, SIZE, reduce), by_loops(src, index, dim, SIZE, "sum")
    expected = {
        "sum": before + total,
        "add": before + total,
        "mul": before * alone,
        "mean": (before + total) / count.clamp(min=1),
        "min": torch.where(count > 0, torch.minimum(before, alone), before),
        "max": torch.where(count > 0, torch.maximum(before, alone), before),
    }[reduce]
    roomy = torch.zeros(*before.shape[:-1], 2 * before.shape[-1], dtype=torch.float64)[..., ::2]
    for out in (before.clone(), roomy):
        out.copy_(before)
        found = getattr(ts, f"scatter_{reduce}")(src, index, dim, out)
        if reduce in ("min", "max"):
            found, places = found
            moved = (expected != before) & (count > 0)
            where = places_by_loops(src, index, dim, SIZE, reduce)
            same(places, torch.where(moved, where, src.shape[dim]))
        assert found is out
        same(out, expected)


def test_gradients_go_to_what_out_held_too():
    _, index, dim = data(SHAPES["rows"])
    generator = torch.Generator().manual_seed(0)
    src, before = (
        torch.randn(rows, 3, generator=generator, dtype=torch.float64).requires_grad_() for rows in (6, SIZE)
    )
    for reduce in REDUCES:
        assert gradcheck(lambda s, b, r=reduce: ts.scatter(s, index, dim, b * 1.5, reduce=r), (src, before))


def test_not_a_number_is_seen_and_infinity_is_a_value():
    src = torch.tensor([1.0, torch.nan, 2.0, -torch.inf])
    index = torch.tensor([0, 0, 0, 1])
    for reduce in ("min", "max"):
        values, places = getattr(ts, f"scatter_{reduce}")(src, index, dim_size=3)
        same(values, torch.tensor([torch.nan, -torch.inf, 0.0]))
        assert places.tolist() == [1, 3, 4]


@pytest.mark.parametrize("bad", [-1, SIZE])
def test_an_index_out_of_range_is_an_index_error(bad):
    src, index = torch.ones(6, 3), torch.tensor([0, 1, 2, bad, 1, 0])
    by_element = index.unsqueeze(1).repeat(1, 3)
    for reduce in REDUCES:
        for each in (index, by_element):
            with pytest.raises(IndexError):
                ts.scatter(src, each, 0, dim_size=SIZE, reduce=reduce)
    for call in (ts.scatter_softmax, ts.scatter_log_softmax, ts.scatter_logsumexp, ts.scatter_std):
        with pytest.raises(IndexError):
            call(src, index, 0, dim_size=SIZE)
    with pytest.raises(IndexError):
        ts.segment_coo(src, index, dim_size=SIZE)
    with pytest.raises(IndexError):
        ts.gather_coo(torch.ones(SIZE, 3), index)


def test_bad_boundaries_are_an_index_error():
    src = torch.ones(2, 6)
    for bad in ([0, 7], [-1, 3], [4, 2]):
        with pytest.raises(IndexError):
            ts.segment_csr(src[0], torch.tensor(bad))
        with pytest.raises(IndexError):
            ts.segment_csr(src, torch.tensor([[0, 6], bad]))
    with pytest.raises(IndexError):
        ts.gather_csr(torch.ones(2), torch.tensor([0, 4, 3]))


def test_other_mistakes_say_what_to_do():
    src, index = torch.ones(6, 3), torch.zeros(6, dtype=torch.int64)
    for call in (ts.scatter, ts.segment_coo, ts.segment_csr):
        with pytest.raises(ValueError, match="reduce must be"):
            call(src, index, reduce="median")
    with pytest.raises(ValueError, match="int64 or int32"):
        ts.scatter(src, index.double(), 0)
    with pytest.raises(RuntimeError):
        ts.scatter(src, index[:4], 0)
    for call in (ts.segment_coo, ts.segment_csr, ts.gather_coo, ts.gather_csr):
        with pytest.raises(ValueError, match="at least one dimension"):
            call(src, torch.tensor(0))
    with pytest.raises(ValueError, match="out must have shape"):
        ts.segment_csr(src, torch.tensor([0, 6]), torch.ones(2, 3))
    with pytest.raises(ValueError, match="4 entries for 3 segments"):
        ts.gather_csr(src[:3], torch.tensor([0, 6]))
    for call in (ts.scatter_softmax, ts.scatter_log_softmax, ts.scatter_logsumexp):
        with pytest.raises(ValueError, match="floating point"):
            call(src.int(), index, 0)


# ---- segments -------------------------------------------------------------------------------------------------------

SEGMENTS = ["sum", "add", "mean", "min", "max"]
# src, leading sizes of the boundaries.
RAGGED = {
    "vector": ([7], []),
    "rows": ([7, 3], []),
    "by batch": ([3, 7], [3]),
    "by batch, rows": ([3, 7, 2], [3]),
    "broadcast": ([3, 7, 2], [1]),
    "two leads": ([2, 3, 7, 2], [2, 1]),
    "no batches": ([0, 7], [0]),
}
every_ragged_with_elements = pytest.mark.parametrize(
    "ragged", [pytest.param(r, id=name) for name, r in RAGGED.items() if 0 not in r[0]]
)
every_ragged = pytest.mark.parametrize("ragged", RAGGED.values(), ids=RAGGED.keys())


def ragged_data(ragged, dtype=torch.float64, whole=False):
    """(src, boundaries [.., 5], the index that says the same, -1 where no segment is)."""
    sizes, lead = ragged
    generator = torch.Generator().manual_seed(3)
    src = torch.randint(-3, 4, sizes, generator=generator).to(dtype)
    length = sizes[len(lead)]
    ptr = torch.randint(0, length + 1, (*lead, 5), generator=generator).sort(-1)[0]
    if whole:
        ptr[..., 0], ptr[..., -1] = 0, length
    rows = torch.arange(length)
    index = (rows.unsqueeze(-1) >= ptr.unsqueeze(-2)).sum(-1) - 1
    index = torch.where((index < 0) | (rows >= ptr[..., -1:]), -1, index)
    return src, ptr, index


@every_ragged
@pytest.mark.parametrize("reduce", SEGMENTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_segment_csr_is_the_loop(ragged, reduce, dtype):
    src, ptr, index = ragged_data(ragged, dtype)
    dim = ptr.dim() - 1
    # Rows in no segment go to a fifth one that is dropped.
    index = torch.where(index < 0, 4, index)
    expected = by_loops(src, index, dim, 5, reduce).narrow(dim, 0, 4)
    for bounds in (ptr, ptr.int(), ptr.transpose(0, -1).contiguous().transpose(0, -1)):
        found = getattr(ts, f"segment_{reduce}_csr")(src, bounds)
        if reduce in ("min", "max"):
            found, places = found
            same(places, places_by_loops(src, index, dim, 5, reduce).narrow(dim, 0, 4))
        same(found, expected, reduce)
        same(ts.segment_csr(src, bounds, reduce=reduce), expected, reduce)
    out = torch.full_like(expected, -2)
    assert ts.segment_csr(src, ptr, out, reduce) is out
    same(out, expected, reduce)


@every_ragged
@pytest.mark.parametrize("reduce", SEGMENTS)
def test_segment_coo_is_scatter_along_its_index(ragged, reduce):
    src, ptr, index = ragged_data(ragged, whole=True)
    dim = ptr.dim() - 1
    found = getattr(ts, f"segment_{reduce}_coo")(src, index, dim_size=5)
    if reduce in ("min", "max"):
        found, places = found
        same(places, places_by_loops(src, index, dim, 5, reduce), reduce)
    same(found, by_loops(src, index, dim, 5, reduce), reduce)
    same(ts.segment_coo(src, index, dim_size=5, reduce=reduce), found)


@every_ragged
@pytest.mark.parametrize("dtype", DTYPES)
def test_gathers_repeat_rows(ragged, dtype):
    src, ptr, index = ragged_data(ragged, dtype, whole=True)
    dim = ptr.dim() - 1
    table = src.narrow(dim, 0, 4).contiguous()
    expected = table.gather(dim, spread(src, index, dim))
    for call, where in ((ts.gather_csr, ptr), (ts.gather_coo, index)):
        found = call(table, where)
        same(found, expected if found.numel() else expected.new_zeros(found.shape))
        out = torch.full_like(expected, -2)
        assert call(table, where, out) is out
        same(out, expected)


def test_gather_csr_leaves_zeros_between_segments():
    table, ptr = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1, 2, 4], [0, 0, 3]])
    found = ts.gather_csr(table, ptr, torch.full((2, 5), -2.0))
    assert found.tolist() == [[0, 1, 2, 2, 0], [4, 4, 4, 0, 0]]


@pytest.mark.parametrize("reduce", SEGMENTS)
def test_nothing_at_all(reduce):
    x = torch.randn(0, 0, 0, 16, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    for out in (
        ts.scatter(x, none, 0, dim_size=0, reduce=reduce),
        ts.segment_coo(x, none, dim_size=0, reduce=reduce),
        ts.segment_csr(x, none, reduce=reduce),
        ts.gather_coo(x, none),
        ts.gather_csr(x, none),
    ):
        assert out.shape == (0, 0, 0, 16)
        (grad,) = torch.autograd.grad(out, x, torch.randn_like(out))
        assert grad.shape == x.shape


# ---- composites -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vector", "rows", "last dimension", "middle", "by batch", "by column", "one column"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_composites_are_torchs_own_per_group(name, dtype):
    sizes, _, dim = SHAPES[name]
    _, index, _ = data(SHAPES[name], 5)
    src = torch.randn(sizes, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    length = src.shape[dim]
    exact, full = (t.movedim(dim, 0).reshape(length, -1) for t in (src.double(), spread(src, index, dim)))
    rest = list(src.movedim(dim, 0).shape[1:])
    soft, logs = torch.zeros_like(exact), torch.zeros_like(exact)
    sums, deviations = (torch.zeros(SIZE, exact.shape[1], dtype=torch.float64) for _ in range(2))
    for column, place in itertools.product(range(exact.shape[1]), range(SIZE)):
        chosen = full[:, column] == place
        group = exact[chosen, column]
        if group.numel():
            soft[chosen, column], logs[chosen, column] = group.softmax(0), group.log_softmax(0)
            sums[place, column] = group.logsumexp(0)
            squares = (group - group.mean()).square().sum()
            deviations[place, column] = (squares / (max(group.numel() - 1, 1) + 1e-6)).sqrt()
    for found, expected in (
        (ts.scatter_softmax(src, index, dim, SIZE), soft),
        (ts.scatter_log_softmax(src, index, dim, dim_size=SIZE), logs),
        (ts.scatter_logsumexp(src, index, dim, dim_size=SIZE), sums),
        (ts.scatter_std(src, index, dim, dim_size=SIZE), deviations),
    ):
        assert found.dtype == dtype
        expected = expected.reshape([expected.shape[0], *rest]).movedim(0, dim)
        room = 2e-3 if dtype == torch.float16 else 1e-6
        torch.testing.assert_close(found.double(), expected, rtol=room, atol=room)


def test_softmax_far_out():
    src = torch.tensor([1e4, 1e4 - 1, -1e4, -torch.inf])
    index = torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(
        ts.scatter_softmax(src, index),
        torch.tensor([1.0, 1 / math.e, 1.0, 0.0]) / torch.tensor([1 + 1 / math.e] * 2 + [1, 1]),
    )
    assert ts.scatter_log_softmax(src, index)[3] == -torch.inf


def test_logsumexp_counts_what_out_held():
    src, index = torch.tensor([-1.0, -50.0, 3.0]), torch.tensor([0, 0, 2])
    out = torch.tensor([-10.0, -10.0, -torch.inf, -torch.inf])
    assert ts.scatter_logsumexp(src, index, out=out) is out
    expected = torch.tensor([torch.tensor([-1.0, -50.0, -10.0]).logsumexp(0), -10.0, 3.0, 0.0])
    torch.testing.assert_close(out, expected)


def test_logsumexp_of_infinities():
    src = torch.tensor([-torch.inf, -torch.inf, torch.inf, 1.0, torch.nan, -torch.inf, 2.0])
    index = torch.tensor([0, 0, 1, 1, 2, 3, 3])
    found = ts.scatter_logsumexp(src, index, dim_size=5)
    torch.testing.assert_close(found, torch.tensor([0.0, torch.inf, torch.nan, 2.0, 0.0]), equal_nan=True)


def test_deviation_with_out_sums_squares_there():
    src, index = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])
    out = torch.tensor([1.0, 4.0])
    found = ts.scatter_std(src, index, out=out)
    assert out.tolist() == [3.0, 4.0]
    torch.testing.assert_close(found, (torch.tensor([3.0, 4.0]) / (1 + 1e-6)).sqrt())
    biased = ts.scatter_std(src, index, unbiased=False)
    torch.testing.assert_close(biased, torch.tensor([1.0, 0.0]), rtol=1e-5, atol=0)


def test_no_gradient_is_lost_where_nothing_deviates():
    src = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    (grad,) = torch.autograd.grad(ts.scatter_std(src, torch.tensor([0, 0, 1])).sum(), src)
    assert grad.isfinite().all() and grad[2] == 0 and grad[0] < 0 < grad[1]


# ---- derivatives, torch.func, TorchScript, torch.compile -------------------------------------------------------------


def calls():
    """Every public function as (function of float64 tensors, leaves)."""
    generator = torch.Generator().manual_seed(7)

    def leaf(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    index, ptr = torch.tensor([0, 1, 0, 3, 1, 3]), torch.tensor([0, 2, 5, 5, 6])
    by_element = torch.randint(0, 4, (6, 2), generator=generator)
    many = torch.tensor([[0, 2, 3], [1, 1, 6]])
    x, batches = leaf(6, 2), leaf(2, 6, 2)
    for reduce in ("sum", "mul", "mean", "min", "max"):
        yield f"scatter {reduce}", lambda s, r=reduce: ts.scatter(s, index, 0, None, 4, r), (x,)
        yield f"scatter by element {reduce}", lambda s, r=reduce: ts.scatter(s, by_element, 0, None, 4, r), (x,)
    for reduce in ("sum", "mean", "min", "max"):
        yield f"segment_csr {reduce}", lambda s, r=reduce: ts.segment_csr(s, ptr, None, r), (x,)
        yield f"segment_csr by batch {reduce}", lambda s, r=reduce: ts.segment_csr(s, many, None, r), (batches,)
        yield f"segment_coo {reduce}", lambda s, r=reduce: ts.segment_coo(s, index, None, 4, r), (x,)
    yield "gather_csr", lambda s: ts.gather_csr(s, ptr), (leaf(4, 2),)
    yield "gather_csr by batch", lambda s: ts.gather_csr(s, torch.tensor([[0, 2, 3], [0, 1, 3]])), (leaf(2, 2, 2),)
    yield "gather_coo", lambda s: ts.gather_coo(s, index), (leaf(4, 2),)
    yield "scatter_softmax", lambda s: ts.scatter_softmax(s, index, 0, 4), (x,)
    yield "scatter_log_softmax", lambda s: ts.scatter_log_softmax(s, index, 0, dim_size=4), (x,)
    yield "scatter_logsumexp", lambda s: ts.scatter_logsumexp(s, index, 0, None, 4), (x,)
    yield "scatter_std", lambda s: ts.scatter_std(s, index, 0, None, 4), (x,)


CASES = {name: (function, leaves) for name, function, leaves in calls()}
every_call = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_call
def test_derivatives(case):
    assert gradcheck(*case, check_forward_ad=True)
    assert gradgradcheck(*case)


@every_call
def test_torch_func(case):
    function, (leaf,) = case
    x = leaf.detach()
    along = torch.randn_like(x)
    value, pushed = torch.func.jvp(function, (x,), (along,))
    _, pull = torch.func.vjp(function, x)
    weights = torch.randn_like(value)
    torch.testing.assert_close((weights * pushed).sum(), (pull(weights)[0] * along).sum())
    several = torch.stack([x, -x, along])
    torch.testing.assert_close(torch.vmap(function)(several), torch.stack([function(one) for one in several]))


@pytest.mark.parametrize(
    "name",
    [
        "scatter mean",
        "scatter by element max",
        "segment_csr sum",
        "segment_csr by batch max",
        "gather_coo",
        "scatter_softmax",
    ],
)
def test_compiles_whole(name):
    function, (leaf,) = CASES[name]
    compiled = torch.compile(function, fullgraph=True)
    out, expected = compiled(leaf), function(leaf)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, leaf, grad), torch.autograd.grad(expected, leaf, grad))


def test_a_traces_gradient_through_the_drop_in_is_the_dense_one():
    """Where torch_scatter's segment_csr is wrong in silence."""
    generator = torch.Generator().manual_seed(1)
    ptr, col = torch.tensor([0, 2, 5, 5, 6, 9]), torch.tensor([1, 2, 0, 3, 4, 2, 0, 1, 4])
    x, v, weight = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((5, 4), (5, 4), (4, 4)))
    weight.requires_grad_()
    dense = torch.zeros(5, 5, dtype=torch.float64)
    dense.index_put_((torch.arange(5).repeat_interleave(ptr.diff()), col), torch.ones((), dtype=torch.float64), True)

    def gradient(aggregate):
        at = x.clone().requires_grad_()
        value = torch.tanh(aggregate(torch.tanh(at @ weight)) + at)
        (pulled,) = torch.autograd.grad(value, at, v, create_graph=True)
        return torch.autograd.grad((pulled * v).sum(), weight)[0]

    expected = gradient(lambda h: dense @ h)
    torch.testing.assert_close(gradient(lambda h: ts.segment_csr(h[col], ptr)), expected, rtol=1e-10, atol=1e-10)


def script_cases():
    src, index, ptr = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 3, 3]), torch.tensor([0, 2, 4, 4, 6])
    for name in ts.__all__:
        if name == "__version__":
            continue
        if name.startswith("gather"):
            yield name, (src[:4], ptr if name.endswith("csr") else index)
        elif name.startswith("segment"):
            yield name, (src, ptr if name.endswith("csr") else index)
        else:
            yield name, (src, index, 0)


@pytest.mark.parametrize(("name", "arguments"), [*script_cases()], ids=[name for name, _ in script_cases()])
def test_torchscript(name, arguments):
    function = getattr(ts, name)
    scripted = torch.jit.script(function)
    of_src = torch.jit.trace(lambda src: function(src, *arguments[1:]), arguments[:1], check_trace=False)
    leaf = arguments[0].clone().requires_grad_()
    expected = function(leaf, *arguments[1:])
    others = (arguments[0] + 1).requires_grad_()
    for way in (scripted, lambda src, *_: of_src(src)):
        found = way(leaf, *arguments[1:])
        pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
        for a, b in pairs:
            same(a, b)
        first = [out[0] if isinstance(out, tuple) else out for out in (found, expected)]
        grads = [torch.autograd.grad(out.square().sum(), leaf, retain_graph=True)[0] for out in first]
        torch.testing.assert_close(*grads)
        # A trace records the call and not its result.
        again, plain = way(others, *arguments[1:]), function(others, *arguments[1:])
        same(*(out[0] if isinstance(out, tuple) else out for out in (again, plain)))


def test_a_script_may_use_them():
    def layer(x: torch.Tensor, index: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
        weight = ts.scatter_softmax(x, index, 0)
        return ts.scatter(weight * x, index, 0, reduce="max") + ts.segment_csr(x, ptr, reduce="mean")

    x, index, ptr = torch.randn(6, 2), torch.tensor([0, 2, 2, 1, 1, 0]), torch.tensor([0, 2, 2, 6])
    same(torch.jit.script(layer)(x, index, ptr), layer(x, index, ptr))


def test_the_same_bits_on_any_number_of_threads(threads):
    generator = torch.Generator().manual_seed(5)
    src, index = torch.randn(20000, 64, generator=generator), torch.randint(0, 3000, (20000,), generator=generator)
    results = []
    for count in (1, 2, 2):
        with threads(count):
            results.append([ts.scatter(src, index, 0, reduce=r) for r in REDUCES] + [ts.scatter_softmax(src, index, 0)])
    for others in results[1:]:
        for a, b in zip(results[0], others, strict=True):
            assert torch.equal(a, b)


# ---- the library itself ----------------------------------------------------------------------------------------------


def test_names_and_signatures_are_the_librarys():
    library = peer()
    theirs = {name for name in library.__all__ if hasattr(library, name)}
    assert theirs <= set(ts.__all__)
    for name in theirs - {"__version__"}:
        ours, original = (inspect.signature(getattr(module, name)).parameters for module in (ts, library))
        assert list(ours) == list(original)
        assert [p.default for p in ours.values()] == [p.default for p in original.values()]
        assert [p.kind for p in ours.values()] == [p.kind for p in original.values()]


@every_shape_with_elements
@every_reduce
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_scatter_is_the_librarys(shape, reduce, dtype):
    library = peer()
    src, index, dim = data(shape, 11, dtype)
    same(
        ts.scatter(src, index, dim, dim_size=SIZE, reduce=reduce),
        library.scatter(src, index, dim, dim_size=SIZE, reduce=reduce),
        reduce,
    )
    out = torch.randint_like(library.scatter(src, index, dim, dim_size=SIZE), -3, 4)
    twin = out.clone()
    found = getattr(ts, f"scatter_{reduce}")(src, index, dim, out)
    original = getattr(library, f"scatter_{reduce}")(src, index, dim, twin)
    if reduce in ("min", "max"):
        same(found[1], original[1])
    same(out, twin)


@every_ragged_with_elements
@pytest.mark.parametrize("reduce", SEGMENTS)
def test_segments_are_the_librarys(ragged, reduce):
    library = peer()
    src, ptr, index = ragged_data(ragged, whole=True)
    for name, where in ((f"segment_{reduce}_csr", ptr), (f"segment_{reduce}_coo", index)):
        ours, theirs = getattr(ts, name)(src, where), getattr(library, name)(src, where)
        for a, b in zip(*(out if isinstance(out, tuple) else (out,) for out in (ours, theirs)), strict=True):
            same(a, b, reduce)
    if index.shape == src.shape[: index.dim()]:  # which torch_scatter asks for here
        table = src.narrow(ptr.dim() - 1, 0, 4)
        same(ts.gather_csr(table, ptr), library.gather_csr(table, ptr))
        same(ts.gather_coo(table, index), library.gather_coo(table, index))


@pytest.mark.parametrize("name", ["scatter_softmax", "scatter_log_softmax", "scatter_logsumexp", "scatter_std"])
@every_shape_with_elements
def test_composites_are_the_librarys(name, shape):
    library = peer()
    sizes, _, dim = shape
    _, index, dim = data(shape, 13)
    src = torch.randn(sizes, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    ours, theirs = getattr(ts, name)(src, index, dim), getattr(library, name)(src, index, dim)
    torch.testing.assert_close(ours, theirs)
    if name != "scatter_std":  # whose gradient is not a number there where one entry is alone
        grad = torch.randn_like(ours)
        torch.testing.assert_close(torch.autograd.grad(ours, src, grad), torch.autograd.grad(theirs, src, grad))
