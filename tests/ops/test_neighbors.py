"""neighbor_reduce, neighbor_max, neighbor_min and edge_dot against their twins, float64 and each other."""

import pytest
import torch
from draws import FLOATS, INTEGERS, LAYOUTS, SEEDS, any_float, any_integer, leaf, randn
from hypothesis import given, settings
from hypothesis import strategies as st
from promises import Promises, gradients_are_near, refused, same_bits_alone_and_in_a_batch, same_bits_every_time

from graphgen import GraphBatch, ops
from graphgen.ops import reference

REDUCES = ["sum", "mean", "max", "min"]
WEIGHTS = ["none", "edge", "head", "feature"]
# Below, at and above the widths of the vectors of each instruction set, and a tile of four with a rest.
WIDTHS = st.sampled_from([0, 1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 70])


def weighted(kind, x, edges, seed):
    """x as the weights need it, and weights; every other row of a larger tensor, so not contiguous."""
    dtype = x.dtype
    if kind == "none":
        return x, None
    if kind == "edge":
        return x, randn(2 * edges, seed=seed, dtype=dtype)[::2]
    if kind == "feature":
        return x, randn(2 * edges, x.shape[1], seed=seed, dtype=dtype)[::2]
    return torch.stack([x, -x, 2 * x], 1), randn(2 * edges, 3, seed=seed, dtype=dtype)[::2]


def hub(seed, degree, index=torch.int64):
    """A node with so many neighbours between two ordinary ones, and an isolated one at the end."""
    source = torch.randint(0, 4, (degree + 3,), generator=torch.Generator().manual_seed(seed))
    target = torch.cat([torch.zeros(2), torch.ones(degree), torch.full((1,), 2)])
    return GraphBatch.from_edge_index(torch.stack([source, target.long()]).to(index), 4)


def absolute(weight):
    return None if weight is None else weight.double().abs()


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SEEDS, WIDTHS, any_float, any_integer, st.sampled_from(WEIGHTS), LAYOUTS)
@settings(max_examples=60)
def test_sums_and_means(make_graph, assert_near, lay_out, seed, width, dtype, index, kind, layout):
    graph = make_graph(seed, index=index)
    x = lay_out(randn(graph.num_nodes, width, seed=seed, dtype=dtype), layout)
    x, weight = weighted(kind, x, graph.num_edges, seed + 1)
    for reduce in ("sum", "mean"):
        out = ops.neighbor_reduce(x, graph, weight, reduce)
        assert out.dtype == dtype
        wide = None if weight is None else weight.double()
        assert_near(
            out,
            reference.neighbor_reduce(x.double(), graph, wide, reduce),
            reference.neighbor_reduce(x.double().abs(), graph, absolute(weight), reduce),
        )


@given(SEEDS, WIDTHS, any_float, any_integer, st.sampled_from(WEIGHTS), LAYOUTS)
@settings(max_examples=60)
def test_extremes_and_where_they_are(make_graph, assert_near, lay_out, seed, width, dtype, index, kind, layout):
    graph = make_graph(seed, index=index)
    x = lay_out(randn(graph.num_nodes, width, seed=seed, dtype=dtype), layout)
    x, weight = weighted(kind, x, graph.num_edges, seed + 1)
    wide = None if weight is None else weight.double()
    terms = x.double()[graph.col]
    if weight is not None:
        terms = terms * wide.view(*wide.shape, *(1,) * (terms.dim() - wide.dim()))
    for name in ("max", "min"):
        values, arg = getattr(ops, f"neighbor_{name}")(x, graph, weight)
        exact, exact_arg = getattr(reference, f"neighbor_{name}")(x.double(), graph, wide)
        assert values.dtype == dtype and arg.dtype == torch.int64
        assert_near(values, exact, 0.0 if exact.numel() == 0 else exact.abs().max())
        isolated = graph.degree == 0
        assert bool((arg[isolated] == graph.num_edges).all()) and bool((values[isolated] == 0).all())
        assert bool((arg[~isolated] < graph.num_edges).all())
        if graph.num_edges:
            at_arg = torch.cat([terms, torch.zeros_like(terms[:1])]).gather(0, arg)
            assert_near(values, at_arg, 0.0)
        if dtype == torch.float64:
            assert torch.equal(arg, exact_arg)
        assert torch.equal(ops.neighbor_reduce(x, graph, weight, name), values)


@given(SEEDS, WIDTHS, any_float, any_integer, LAYOUTS, LAYOUTS, st.sampled_from([0, 1, 3]))
@settings(max_examples=60)
def test_edge_dot(make_graph, assert_near, lay_out, seed, width, dtype, index, layout, other, heads):
    graph = make_graph(seed, index=index)
    target = lay_out(randn(graph.num_nodes, width, seed=seed, dtype=dtype), layout)
    source = lay_out(randn(graph.num_nodes, width, seed=seed + 1, dtype=dtype), other)
    if heads:
        scale = torch.arange(1, heads + 1, dtype=dtype).view(-1, 1)
        target, source = target.unsqueeze(1) * scale, source.unsqueeze(1).expand(-1, heads, -1)
    out = ops.edge_dot(target, source, graph)
    assert out.dtype == dtype
    a, b = target.double(), source.double()
    assert_near(out, reference.edge_dot(a, b, graph), reference.edge_dot(a.abs(), b.abs(), graph))


@pytest.mark.parametrize("index", INTEGERS)
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("degree", [255, 256, 257, 258, 600])
def test_nodes_of_many_neighbours(assert_near, degree, kind, index):
    """Around the 256 edges that a block holds."""
    graph = hub(degree, degree, index)
    x, weight = weighted(kind, randn(4, 20, seed=1), graph.num_edges, 2)
    for reduce in REDUCES:
        assert_near(
            ops.neighbor_reduce(x, graph, weight, reduce),
            reference.neighbor_reduce(x, graph, weight, reduce),
            reference.neighbor_reduce(x.abs(), graph, absolute(weight)),
        )
    assert_near(ops.edge_dot(x, x, graph), reference.edge_dot(x, x, graph), reference.edge_dot(x.abs(), x.abs(), graph))


def test_many_isolated_nodes_and_few_edges(assert_near):
    edges = torch.tensor([[5, 1999, 1000], [1000, 0, 1999]])
    graph = GraphBatch.from_edge_index(edges, 2000)
    x = randn(2000, 5, seed=1)
    torch.full((2000, 5), torch.nan, dtype=torch.float64)  # leaves its memory to a result
    for reduce in REDUCES:
        assert_near(ops.neighbor_reduce(x, graph, reduce=reduce), reference.neighbor_reduce(x, graph, reduce=reduce))


def test_ties_go_to_the_lowest_edge_and_the_first_nan_wins():
    graph = GraphBatch.from_edge_index(torch.tensor([[0, 1, 2, 3, 0], [4, 4, 4, 4, 0]]), 5)
    nan, inf = torch.nan, torch.inf
    x = torch.tensor([[1.0, 1, 2, nan, -inf], [3, nan, 2, 1, -inf], [3, 5, 2, 9, -inf], [0, nan, 1, nan, -inf]])
    x = torch.cat([x, torch.zeros(1, 5)])
    values, arg = ops.neighbor_max(x, graph)
    # Edge 0 of the batch is the self-loop of node 0.
    assert arg[4].tolist() == [2, 2, 1, 1, 1]
    torch.testing.assert_close(values[4], torch.tensor([3, nan, 2, nan, -inf]), equal_nan=True)
    values, arg = ops.neighbor_min(x, graph)
    assert arg[4].tolist() == [4, 2, 4, 1, 1]
    torch.testing.assert_close(values[4], torch.tensor([0, nan, 1, nan, -inf]), equal_nan=True)
    assert arg[1:4].eq(5).all() and values[1:4].eq(0).all()


def test_a_nan_goes_where_its_edges_go_and_nowhere_else(make_graph):
    graph = make_graph(4, sizes=[5, 6])
    source = randn(11, 7, seed=3, dtype=torch.float32)
    source[2, 4] = torch.nan
    hit = reference.neighbor_reduce(source, graph).isnan()
    assert 0 < int(hit.sum()) < hit.numel()
    for reduce in REDUCES:
        assert torch.equal(ops.neighbor_reduce(source, graph, reduce=reduce).isnan(), hit)


def test_a_term_that_does_not_count_does_not_bring_its_nan(make_graph):
    """The gradient of a maximum leaves the losing terms out, whatever they meet."""
    graph = GraphBatch.from_edge_index(torch.tensor([[0, 1], [2, 2]]), 3)
    x = torch.tensor([[1.0], [2.0], [0.0]], requires_grad=True)
    weight = torch.ones(2, requires_grad=True)
    values = ops.neighbor_reduce(x, graph, weight, "max")
    x.data[0] = torch.nan  # after the fact: edge 0 has lost
    grad = torch.tensor([[torch.nan], [torch.nan], [1.0]])
    dx, dweight = torch.autograd.grad(values, (x, weight), grad)
    assert dx.flatten().tolist() == [0, 1, 0] and dweight.tolist() == [0, 2]


def test_other_dtypes_get_the_reference(make_graph):
    graph = make_graph(1, sizes=[5, 4])
    x = randn(9, 2, 3, seed=0, dtype=torch.float16)
    weight = randn(graph.num_edges, 2, seed=1, dtype=torch.float16)
    for reduce in REDUCES:
        a, b = (t.clone().requires_grad_() for t in (x, weight))
        c, d = (t.double().requires_grad_() for t in (x, weight))
        out, exact = ops.neighbor_reduce(a, graph, b, reduce), ops.neighbor_reduce(c, graph, d, reduce)
        torch.testing.assert_close(out.double(), exact, atol=1e-2, rtol=1e-2)
        for found, wide in zip(
            torch.autograd.grad(out.sum(), (a, b)), torch.autograd.grad(exact.sum(), (c, d)), strict=True
        ):
            torch.testing.assert_close(found.double(), wide, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(ops.edge_dot(x, x, graph), reference.edge_dot(x, x, graph), atol=1e-2, rtol=1e-2)
    assert torch.equal(ops.neighbor_max(x, graph, weight)[1], reference.neighbor_max(x, graph, weight)[1])


# ---- derivatives ----------------------------------------------------------------------------------------------------


def leaves_of(kind, graph):
    n, e = graph.num_nodes, graph.num_edges
    x = leaf(n, 2, 2, seed=3) if kind == "head" else leaf(n, 3, seed=3)
    shape = {"none": None, "edge": (e,), "head": (e, 2), "feature": (e, 3)}[kind]
    return (x,) if shape is None else (x, leaf(*shape, seed=4))


CASES = [*(f"{reduce} {kind}" for reduce in REDUCES for kind in WEIGHTS), "dot", "dot heads"]


@pytest.fixture(params=CASES)
def case(request, make_graph):
    """An op and its float64 leaves, on graphs with empty and isolated parts."""
    graph = make_graph(11, sizes=[4, 0, 5, 1])
    n = graph.num_nodes
    if request.param.startswith("dot"):
        shape = (n, 3) if request.param == "dot" else (n, 2, 3)
        return lambda a, b: ops.edge_dot(a, b, graph), (leaf(*shape, seed=6), leaf(*shape, seed=7))
    reduce, kind = request.param.split()
    return lambda x, *w: ops.neighbor_reduce(x, graph, *w, reduce=reduce), leaves_of(kind, graph)


class TestEveryCase(Promises):
    pass


@given(SEEDS, WIDTHS, any_float, any_integer, st.sampled_from(WEIGHTS[1:]))
@settings(max_examples=40)
def test_gradients_of_any_shape_and_dtype(make_graph, assert_near, seed, width, dtype, index, kind):
    graph = make_graph(seed, index=index)
    x, weight = weighted(kind, randn(graph.num_nodes, width, seed=seed, dtype=dtype), graph.num_edges, seed + 1)
    grad = randn(*x.shape, seed=seed + 3, dtype=dtype)
    for reduce in REDUCES:
        gradients_are_near(
            lambda found, exact: assert_near(found, exact, 10.0 * (1 + width + graph.num_edges)),
            lambda x, weight, r=reduce: ops.neighbor_reduce(x, graph, weight, r),
            lambda x, weight, r=reduce: reference.neighbor_reduce(x, graph, weight, r),
            (x, weight),
            grad,
        )


def test_the_argument_has_no_gradient(make_graph):
    graph = make_graph(7, sizes=[4, 3])
    values, arg = ops.neighbor_max(leaf(7, 3, seed=1), graph)
    assert values.requires_grad and not arg.requires_grad


# ---- torch.func, torch.library, torch.compile -----------------------------------------------------------------------


def test_vmap_of_an_extreme_gives_its_arguments(make_graph):
    graph = make_graph(3, sizes=[4, 3])
    x = randn(5, 7, 3, seed=1)
    values, arg = torch.vmap(lambda x: ops.neighbor_max(x, graph))(x)
    for k in range(5):
        expected = ops.neighbor_max(x[k], graph)
        assert torch.equal(values[k], expected[0]) and torch.equal(arg[k], expected[1])


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_vmap_of_an_extreme_over_graphs_is_a_loop(reduce):
    ends = torch.tensor([[[0, 2, 1, 3, 3], [0, 0, 1, 1, 3]], [[1, 1, 1, 0, 2], [0, 0, 1, 1, 3]]])
    x, weight = randn(2, 4, 3, seed=1), randn(5, seed=2)

    def extreme(edges, x, weight):
        # The targets are the same in both, so one rowptr serves; sources differ.
        graph = GraphBatch(torch.tensor([0, 4]), torch.tensor([0, 2, 4, 4, 5]), edges, torch.arange(5))
        return getattr(ops, f"neighbor_{reduce}")(x, graph, weight)

    values, arg = torch.vmap(extreme, in_dims=(0, 0, None))(ends[:, 0], x, weight)
    slopes = torch.vmap(torch.func.grad(lambda x, e: extreme(e, x, weight)[0].square().sum()))(x, ends[:, 0])
    for k in range(2):
        expected, place = extreme(ends[k, 0], x[k], weight)
        assert torch.equal(values[k], expected) and torch.equal(arg[k], place)
        at = x[k].clone().requires_grad_()
        (slope,) = torch.autograd.grad(extreme(ends[k, 0], at, weight)[0].square().sum(), at)
        torch.testing.assert_close(slopes[k], slope)


@pytest.mark.parametrize(("sizes", "features"), [([], 3), ([0, 0], 3), ([3, 2], 0), ([], 0)])
def test_nothing(make_graph, sizes, features):
    graph = make_graph(1, sizes=sizes)
    n, e = graph.num_nodes, graph.num_edges
    x = torch.zeros(4, n, features, dtype=torch.float64)
    for weight in (None, torch.ones(e, dtype=x.dtype), torch.ones(e, features, dtype=x.dtype)):
        for reduce in REDUCES:

            def function(t, w=weight, r=reduce):
                return ops.neighbor_reduce(t, graph, w, r)

            assert function(x[0]).shape == (n, features)
            assert torch.vmap(function)(x).shape == (4, n, features)
            assert torch.func.grad(lambda t, f=function: f(t).sum())(x[0]).shape == (n, features)
    assert ops.edge_dot(x[0], x[0], graph).shape == (e,)
    assert ops.neighbor_max(x[0], graph)[1].shape == (n, features)
    assert torch.vmap(lambda x: ops.neighbor_reduce(x, graph))(x[:0]).shape == (0, n, features)


@pytest.mark.parametrize("index", INTEGERS)
def test_opcheck(make_graph, index):
    graph = make_graph(6, sizes=[4, 0, 3], index=index)
    n, e = graph.num_nodes, graph.num_edges
    edges = (*graph.incoming, *graph.outgoing)
    x, y, weight = leaf(n, 4, seed=1), leaf(n, 4, seed=2), leaf(e, 2, seed=4)
    arg = ops.neighbor_max(x.detach(), graph)[1]
    space, check = torch.ops.graphgen, torch.library.opcheck
    check(space.neighbor_reduce.default, (x, weight, None, *edges, False, "sum"))
    check(space.neighbor_reduce.default, (x, None, None, *edges, False, "mean"))
    check(space.neighbor_reduce.default, (x, weight, arg, *edges, False, "sum"))
    check(space.neighbor_reduce.default, (x, weight, arg, *edges[3:], *edges[:3], True, "sum"))
    check(space.neighbor_extreme.default, (x, weight, *edges, "max"))
    check(space.neighbor_extreme.default, (x, None, *edges, "min"))
    check(space.edge_dot.default, (x, y, None, *edges, 2, False))
    check(space.edge_dot.default, (x, y, arg, *edges, 4, True))


# ---- the same bits --------------------------------------------------------------------------------------------------


def everything(graph, x, weight):
    """Values and gradients, with what they are per: a node or an edge."""
    x = x.detach().requires_grad_()
    weight = None if weight is None else weight.detach().requires_grad_()
    leaves = (x,) if weight is None else (x, weight)
    for reduce in REDUCES:
        out = ops.neighbor_reduce(x, graph, weight, reduce)
        yield out.detach(), "node"
        yield from zip(torch.autograd.grad(out.square().sum(), leaves), ("node", "edge"), strict=False)
    yield ops.edge_dot(x, 2 * x, graph).detach(), "edge"


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_run_and_number_of_threads_gives_the_same_bits(make_graph, threads, dtype, kind):
    graph = make_graph(1, sizes=[13] * 150 + [0, 700], edges_per_node=3)
    x, weight = weighted(kind, randn(graph.num_nodes, 37, seed=1, dtype=dtype), graph.num_edges, 4)
    same_bits_every_time(threads, lambda: (part for part, _ in everything(graph, x, weight)))


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("features", [1, 5, 37, 64])
def test_a_graph_has_the_same_bits_alone_and_in_a_batch(make_graph, features, kind):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 300, 13, 7])
    for dtype in FLOATS:
        x, weight = weighted(kind, randn(graph.num_nodes, features, seed=1, dtype=dtype), graph.num_edges, 4)

        def results(graph, nodes, edges, graphs, x=x, weight=weight):
            return everything(graph, x[nodes], None if weight is None else weight[edges])

        same_bits_alone_and_in_a_batch(graph, results)


@pytest.mark.parametrize("dtype", FLOATS)
def test_columns_have_the_same_bits_wherever_they_stand(make_graph, dtype):
    """vmap moves a graph's columns about as its batch mates change; tiles of every width must agree."""
    graph = make_graph(3, sizes=[30, 40])
    x, weight = randn(70, 1, seed=1, dtype=dtype), randn(graph.num_edges, 1, seed=2, dtype=dtype)
    for reduce in REDUCES:
        alone = ops.neighbor_reduce(x, graph, weight, reduce)
        grad = torch.func.grad(lambda x, r=reduce: ops.neighbor_reduce(x, graph, weight, r).square().sum())
        for width in (2, 7, 16, 64, 129):
            many = x.expand(-1, width).contiguous()
            wide = weight.expand(-1, width).contiguous()
            assert torch.equal(ops.neighbor_reduce(many, graph, wide, reduce), alone.expand(-1, width))
            assert torch.equal(ops.neighbor_reduce(many, graph, weight[:, 0], reduce), alone.expand(-1, width))
            together = torch.vmap(grad, in_dims=2, out_dims=2)(many.unsqueeze(1))
            assert torch.equal(together, grad(x).unsqueeze(2).expand(-1, -1, width))


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_shapes_dtypes_and_names_that_do_not_fit(make_graph):
    graph = make_graph(1, sizes=[3, 2])
    e = graph.num_edges
    x, heads = torch.zeros(5, 2), torch.zeros(5, 3, 2)
    calls = [
        lambda: ops.neighbor_reduce(x[:4], graph),
        lambda: ops.neighbor_reduce(x[:, 0], graph),
        lambda: ops.neighbor_reduce(heads.unsqueeze(0), graph),
        lambda: ops.neighbor_reduce(x.to("meta"), graph),
        lambda: ops.neighbor_reduce(x, graph, torch.zeros(e + 1)),
        lambda: ops.neighbor_reduce(x, graph, torch.zeros(())),
        lambda: ops.neighbor_reduce(x, graph, torch.zeros(e, 3)),
        lambda: ops.neighbor_reduce(heads, graph, torch.zeros(e, 2)),
        lambda: ops.neighbor_reduce(heads, graph, torch.zeros(e, 3, 2)),
        lambda: ops.neighbor_reduce(x, graph, torch.zeros(e).double()),
        lambda: ops.neighbor_reduce(x, graph, reduce="mul"),
        lambda: ops.neighbor_max(x[:4], graph),
        lambda: ops.neighbor_min(x, graph, torch.zeros(e, 3)),
        lambda: ops.edge_dot(x, x[:, :1], graph),
        lambda: ops.edge_dot(x, x.double(), graph),
        lambda: ops.edge_dot(heads, x, graph),
    ]
    refused(calls, r"^(neighbor_reduce|neighbor_max|neighbor_min|edge_dot): ")


def test_an_edge_to_nowhere_is_an_index_error():
    with pytest.raises(IndexError, match="leaves the 3 nodes"):
        GraphBatch.from_edge_index(torch.tensor([[0, 3], [1, 1]]), 3)
