from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from graphgen import GraphBatch, ops
from graphgen.ops import reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
INDICES = [torch.int32, torch.int64]
# None is [E]; the others lie around the widths of vectors and of a block of heads.
HEADS = st.sampled_from([None, 0, 1, 2, 3, 4, 7, 8, 16, 17, 63, 64, 70])
SEEDS = st.integers(0, 10**6)
LAYOUTS = st.sampled_from(["contiguous", "transposed", "strided", "expanded"])


def randn(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leaf(*shape, seed):
    return randn(*shape, seed=seed).requires_grad_()


def logits_of(graph, heads, seed, dtype=torch.float64):
    return randn(graph.num_edges, *(() if heads is None else (heads,)), seed=seed, dtype=dtype)


def star(points, others=5):
    """One node that every edge but a few enters: a row longer than any buffer."""
    source = torch.arange(points) % (others + 1)
    target = torch.where(torch.arange(points) % 97 == 5, source, 3)
    return GraphBatch.from_edge_index(torch.stack([source, target]), others + 1)


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SEEDS, HEADS, st.sampled_from(DTYPES), st.sampled_from(INDICES), LAYOUTS, st.sampled_from([1.0, 30.0, 1e4]))
def test_values(make_graph, assert_near, lay_out, seed, heads, dtype, index, layout, spread):
    graph = make_graph(seed, index=index)
    logits = spread * logits_of(graph, heads, seed, dtype)
    logits = logits.repeat_interleave(2)[::2] if heads is None else lay_out(logits, layout)
    out = ops.edge_softmax(logits, graph)
    assert out.dtype == dtype
    assert_near(out, reference.edge_softmax(logits.double(), graph))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [None, 1, 3, 64, 70])
@pytest.mark.parametrize("edges", [1023, 1024, 1025, 3000])
def test_rows_longer_than_a_buffer(assert_near, dtype, heads, edges):
    graph = star(edges)
    logits = logits_of(graph, heads, 1, dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    out, expected = ops.edge_softmax(logits, graph), reference.edge_softmax(exact, graph)
    assert_near(out.detach(), expected.detach())
    along = logits_of(graph, heads, 2, dtype)
    (found,) = torch.autograd.grad(out, logits, along)
    # From the result that was kept, which has the rounding of its dtype.
    kept = out.detach().double()
    mean = reference.segment_reduce(kept * along.double(), graph.rowptr)
    slope = kept * (along.double() - reference.segment_broadcast(mean, graph.rowptr, edges))
    assert_near(found, slope, kept)


def test_rows_sum_to_one(make_graph):
    graph = make_graph(3, sizes=[9, 0, 30])
    sums = ops.segment_reduce(ops.edge_softmax(100 * logits_of(graph, 5, 1), graph), graph.rowptr)
    expected = (graph.degree > 0).double().unsqueeze(1).expand_as(sums)
    torch.testing.assert_close(sums, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("heads", [None, 1, 2, 5, 16])
def test_what_is_not_finite_stays_in_its_row_and_head_as_in_torch(heads):
    lengths = [1, 3, 7, 2, 4, 0, 5, 6]
    target = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    graph = GraphBatch.from_edge_index(torch.stack([torch.zeros_like(target), target]), len(lengths))
    logits = logits_of(graph, heads, 1, torch.float32)
    column = logits if heads is None else logits[:, heads // 2]
    bounds = graph.rowptr.tolist()
    column[bounds[1] + 2] = torch.nan
    column[bounds[2] : bounds[3]] = -torch.inf
    column[bounds[3]] = -torch.inf
    column[bounds[6] + 4] = torch.inf
    out = ops.edge_softmax(logits, graph)
    for first, last in pairwise(bounds):
        torch.testing.assert_close(out[first:last], torch.softmax(logits[first:last], 0), equal_nan=True)


def test_other_dtypes_get_the_reference(make_graph):
    graph = make_graph(1, sizes=[5, 4])
    logits = logits_of(graph, 3, 1, torch.float16)
    assert torch.equal(ops.edge_softmax(logits, graph), reference.edge_softmax(logits, graph))
    with_grad = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(ops.edge_softmax(with_grad, graph)[:, 0].square().sum(), with_grad)
    assert grad.dtype == torch.float16 and grad[:, 0].abs().max() > 0


@pytest.mark.parametrize(("sizes", "heads"), [([], 3), ([0, 0], None), ([3, 2], 0), ([], 0)])
def test_nothing(make_graph, sizes, heads):
    graph = make_graph(1, sizes=sizes)
    logits = logits_of(graph, heads, 1).requires_grad_()
    out = ops.edge_softmax(logits, graph)
    assert out.shape == logits.shape
    assert torch.autograd.grad(out.sum(), logits)[0].shape == logits.shape
    many = torch.stack([logits.detach()] * 4)
    assert torch.vmap(lambda t: ops.edge_softmax(t, graph))(many).shape == many.shape
    lonely = GraphBatch.from_edge_index(torch.empty(2, 0, dtype=torch.int64), 4)
    assert ops.edge_softmax(torch.empty(0), lonely).shape == (0,)


# ---- derivatives ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[None, 1, 3])
def case(request, make_graph):
    graph = make_graph(11, sizes=[4, 0, 5, 1])
    return lambda logits: ops.edge_softmax(logits, graph), logits_of(graph, request.param, 1).requires_grad_()


def test_first_derivatives(case):
    assert gradcheck(*case, check_forward_ad=True, check_batched_grad=True)


def test_second_derivatives(case):
    assert gradgradcheck(*case, check_fwd_over_rev=True)


def test_the_tangent_has_two_derivatives(case):
    function, logits = case
    along = randn(*logits.shape, seed=2).requires_grad_()

    def tangent(at, along):
        return torch.func.jvp(function, (at,), (along,))[1]

    assert gradcheck(tangent, (logits, along))
    assert gradgradcheck(tangent, (logits, along))


@given(SEEDS, HEADS, st.sampled_from(DTYPES), st.sampled_from(INDICES))
def test_gradients_of_any_shape_and_dtype(make_graph, assert_near, seed, heads, dtype, index):
    graph = make_graph(seed, index=index)
    logits = logits_of(graph, heads, seed, dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    grad = logits_of(graph, heads, seed + 1, dtype)
    (found,) = torch.autograd.grad(ops.edge_softmax(logits, graph), logits, grad)
    (expected,) = torch.autograd.grad(reference.edge_softmax(exact, graph), exact, grad.double())
    assert found.dtype == dtype
    room = 600.0 if dtype == torch.bfloat16 else 4.0  # the kept result was rounded too
    assert_near(found, expected, room * (1 + grad.double().abs().max() if grad.numel() else 0.0))


# ---- torch.func, torch.library, torch.compile -----------------------------------------------------------------------


def test_jvp_vjp_and_vmap_against_loops(case):
    function, leaf_ = case
    logits = leaf_.detach()
    along, cotangent = randn(*logits.shape, seed=2), randn(*logits.shape, seed=3)
    value, pushed = torch.func.jvp(function, (logits,), (along,))
    same, pull = torch.func.vjp(function, logits)
    assert torch.equal(value, same)
    torch.testing.assert_close((cotangent * pushed).sum(), (pull(cotangent)[0] * along).sum(), rtol=1e-12, atol=1e-12)
    many = randn(4, *logits.shape, seed=4)
    assert torch.equal(torch.vmap(function)(many), torch.stack([function(one) for one in many]))
    last = many.movedim(0, -1)
    assert torch.equal(torch.vmap(function, in_dims=-1, out_dims=-1)(last).movedim(-1, 0), torch.vmap(function)(many))
    torch.testing.assert_close(
        torch.vmap(lambda v: torch.func.jvp(function, (logits,), (v,))[1])(many),
        torch.stack([torch.func.jvp(function, (logits,), (one,))[1] for one in many]),
    )
    torch.testing.assert_close(
        torch.vmap(lambda at: torch.func.vjp(function, at)[1](cotangent)[0])(many),
        torch.stack([torch.func.vjp(function, one)[1](cotangent)[0] for one in many]),
    )
    jacobians = torch.func.jacfwd(function)(logits), torch.func.jacrev(function)(logits)
    torch.testing.assert_close(*jacobians, rtol=1e-12, atol=1e-12)
    total = lambda at: (function(at) * cotangent).sum()  # noqa: E731
    expected = torch.func.jacrev(torch.func.jacrev(total))(logits)
    torch.testing.assert_close(torch.func.hessian(total)(logits), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("index", INDICES)
def test_opcheck(make_graph, index):
    graph = make_graph(6, sizes=[4, 0, 3], index=index)
    for shape in ((graph.num_edges,), (graph.num_edges, 3)):
        x, y = leaf(*shape, seed=1), leaf(*shape, seed=2)
        torch.library.opcheck(torch.ops.graphgen.edge_softmax.default, (x, graph.rowptr))
        torch.library.opcheck(torch.ops.graphgen.edge_softmax_slope.default, (x, y, graph.rowptr))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_whole_with_its_gradient(case, backend):
    function, logits = case
    torch.compiler.reset()
    layer = lambda x: function(2 * x).sin()  # noqa: E731
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    grad = randn(*logits.shape, seed=50)
    torch.testing.assert_close(compiled(logits), layer(logits))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(logits), logits, grad), torch.autograd.grad(layer(logits), logits, grad)
    )


# ---- the same bits --------------------------------------------------------------------------------------------------


def value_and_slope(logits, graph, along):
    at = logits.clone().requires_grad_()
    out = ops.edge_softmax(at, graph)
    return out.detach(), torch.autograd.grad(out, at, along)[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_twenty_runs_and_any_number_of_threads_give_the_same_bits(make_graph, threads, dtype):
    graph = make_graph(1, sizes=[13] * 150 + [0, 700, 1], edges_per_node=3)
    for heads in (None, 7, 70):
        logits, along = (logits_of(graph, heads, seed, dtype) for seed in (1, 2))
        with threads(1):
            first = value_and_slope(logits, graph, along)
        for run in range(20):
            with threads(1 + run % 3):
                assert all(torch.equal(a, b) for a, b in zip(first, value_and_slope(logits, graph, along), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [None, 1, 3, 8, 37, 70])
def test_a_graph_has_the_same_bits_alone_and_in_a_batch(make_graph, dtype, heads):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 300, 13, 7])
    logits, along = (logits_of(graph, heads, seed, dtype) for seed in (1, 2))
    together = value_and_slope(logits, graph, along)
    for g in range(graph.num_graphs):
        nodes = slice(int(graph.ptr[g]), int(graph.ptr[g + 1]))
        edges = slice(int(graph.rowptr[nodes.start]), int(graph.rowptr[nodes.stop]))
        one = GraphBatch.from_edge_index(graph.edge_index[:, edges] - nodes.start, nodes.stop - nodes.start)
        for mine, batched in zip(value_and_slope(logits[edges], one, along[edges]), together, strict=True):
            assert torch.equal(mine, batched[edges])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("graph", [None, 1500], ids=["short rows", "a long row"])
def test_a_head_has_the_same_bits_wherever_it_stands(make_graph, dtype, graph):
    """vmap makes heads of a batch, so other heads and their number must not matter."""
    graph = star(graph) if graph else make_graph(3, sizes=[30, 40], edges_per_node=3)
    logits, along = logits_of(graph, None, 1, dtype), logits_of(graph, None, 2, dtype)
    alone = value_and_slope(logits, graph, along)
    for width in (1, 2, 7, 31, 64, 129):
        wide = [t.unsqueeze(1).expand(-1, width).contiguous() for t in (logits, along)]
        for found, expected in zip(value_and_slope(wide[0], graph, wide[1]), alone, strict=True):
            assert torch.equal(found, expected.unsqueeze(1).expand(-1, width))


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_shapes_and_devices_that_do_not_fit(make_graph):
    graph = make_graph(1, sizes=[3, 2])
    logits = torch.zeros(graph.num_edges, 2)
    for refused in (logits[1:], logits[:, 0][1:], logits.unsqueeze(0), torch.tensor(1.0), logits.to("meta")):
        with pytest.raises(ValueError, match="edge_softmax"):
            ops.edge_softmax(refused, graph)
