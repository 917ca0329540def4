from itertools import pairwise

import pytest
import torch
from draws import FLOATS, INTEGERS, LAYOUTS, SEEDS, any_float, any_integer, leaf, randn
from hypothesis import given
from hypothesis import strategies as st
from promises import (
    Promises,
    compiles_whole,
    gradients_are_near,
    same_bits,
    same_bits_alone_and_in_a_batch,
    same_bits_every_time,
    tangents_have_two_derivatives,
)

from graphgen import GraphBatch, ops
from graphgen.ops import reference

# None is [E]; the others lie around the widths of vectors and of a block of heads.
HEADS = st.sampled_from([None, 0, 1, 2, 3, 4, 7, 8, 16, 17, 63, 64, 70])


def logits_of(graph, heads, seed, dtype=torch.float64):
    return randn(graph.num_edges, *(() if heads is None else (heads,)), seed=seed, dtype=dtype)


def star(points, others=5):
    """One node that every edge but a few enters: a row longer than any buffer."""
    source = torch.arange(points) % (others + 1)
    target = torch.where(torch.arange(points) % 97 == 5, source, 3)
    return GraphBatch.from_edge_index(torch.stack([source, target]), others + 1)


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SEEDS, HEADS, any_float, any_integer, LAYOUTS, st.sampled_from([1.0, 30.0, 1e4]))
def test_values(make_graph, assert_near, lay_out, seed, heads, dtype, index, layout, spread):
    graph = make_graph(seed, index=index)
    logits = spread * logits_of(graph, heads, seed, dtype)
    logits = logits.repeat_interleave(2)[::2] if heads is None else lay_out(logits, layout)
    out = ops.edge_softmax(logits, graph)
    assert out.dtype == dtype
    assert_near(out, reference.edge_softmax(logits.double(), graph))


@pytest.mark.parametrize("dtype", FLOATS)
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
    return lambda logits: ops.edge_softmax(logits, graph), (logits_of(graph, request.param, 1).requires_grad_(),)


class TestEveryCase(Promises):
    def test_tangents_have_two_derivatives(self, case):
        tangents_have_two_derivatives(*case)

    def test_vmap_has_the_bits_of_a_loop(self, case):
        function, (logits,) = case
        many = randn(4, *logits.shape, seed=4)
        looped = torch.stack([function(one) for one in many])
        same_bits(torch.vmap(function)(many), looped)
        same_bits(torch.vmap(function, in_dims=-1, out_dims=-1)(many.movedim(0, -1)).movedim(-1, 0), looped)

    def test_forward_over_reverse_is_reverse_over_reverse(self, case):
        function, (logits,) = case
        cotangent = randn(*logits.shape, seed=3)

        def total(at):
            return (function(at) * cotangent).sum()

        expected = torch.func.jacrev(torch.func.jacrev(total))(logits.detach())
        torch.testing.assert_close(torch.func.hessian(total)(logits.detach()), expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
    def test_compiled_between_other_operations(self, case, backend):
        function, leaves = case
        compiles_whole(lambda logits: function(2 * logits).sin(), leaves, backend)


@given(SEEDS, HEADS, any_float, any_integer)
def test_gradients_of_any_shape_and_dtype(make_graph, assert_near, seed, heads, dtype, index):
    graph = make_graph(seed, index=index)
    grad = logits_of(graph, heads, seed + 1, dtype)
    room = 600.0 if dtype == torch.bfloat16 else 4.0  # the kept result was rounded too
    scale = room * (1 + grad.double().abs().max() if grad.numel() else 0.0)
    gradients_are_near(
        lambda found, exact: assert_near(found, exact, scale),
        lambda logits: ops.edge_softmax(logits, graph),
        lambda logits: reference.edge_softmax(logits, graph),
        (logits_of(graph, heads, seed, dtype),),
        grad,
    )


# ---- torch.library ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INTEGERS)
def test_opcheck(make_graph, index):
    graph = make_graph(6, sizes=[4, 0, 3], index=index)
    for shape in ((graph.num_edges,), (graph.num_edges, 3)):
        x, y = leaf(*shape, seed=1), leaf(*shape, seed=2)
        torch.library.opcheck(torch.ops.graphgen.edge_softmax.default, (x, graph.rowptr))
        torch.library.opcheck(torch.ops.graphgen.edge_softmax_slope.default, (x, y, graph.rowptr))


# ---- the same bits --------------------------------------------------------------------------------------------------


def value_and_slope(logits, graph, along):
    at = logits.clone().requires_grad_()
    out = ops.edge_softmax(at, graph)
    return out.detach(), torch.autograd.grad(out, at, along)[0]


@pytest.mark.parametrize("dtype", FLOATS)
def test_twenty_runs_and_any_number_of_threads_give_the_same_bits(make_graph, threads, dtype):
    graph = make_graph(1, sizes=[13] * 150 + [0, 700, 1], edges_per_node=3)
    for heads in (None, 7, 70):
        logits, along = (logits_of(graph, heads, seed, dtype) for seed in (1, 2))
        same_bits_every_time(threads, lambda parts=(logits, graph, along): value_and_slope(*parts))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("heads", [None, 1, 3, 8, 37, 70])
def test_a_graph_has_the_same_bits_alone_and_in_a_batch(make_graph, dtype, heads):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 300, 13, 7])
    logits, along = (logits_of(graph, heads, seed, dtype) for seed in (1, 2))

    def results(graph, nodes, edges, graphs):
        return [(part, "edge") for part in value_and_slope(logits[edges], graph, along[edges])]

    same_bits_alone_and_in_a_batch(graph, results)


@pytest.mark.parametrize("dtype", FLOATS)
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
