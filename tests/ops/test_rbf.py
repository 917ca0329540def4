import pytest
import torch
from draws import FLOATS, INTEGERS, LAYOUTS, SEEDS, any_float, any_integer, leaf, randn
from hypothesis import given
from hypothesis import strategies as st
from promises import (
    Promises,
    compiles_whole,
    gradients_are_near,
    refused,
    same_bits_alone_and_in_a_batch,
    same_bits_every_time,
    tangents_have_two_derivatives,
)
from torch.autograd import gradcheck, gradgradcheck

from graphgen import GraphBatch, ops
from graphgen.ops import reference

SIZES = st.sampled_from([0, 1, 3, 5, 8, 15, 16, 17, 33, 64, 70])


def basis(bases, seed=0, dtype=torch.float64):
    centers = torch.linspace(0, 4, bases, dtype=torch.float64)
    return centers.to(dtype), (0.3 + randn(bases, seed=seed).abs()).to(dtype)


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SEEDS, SIZES, any_float, any_integer, LAYOUTS)
def test_edge_distance_values(make_graph, assert_near, lay_out, seed, features, dtype, index, layout):
    graph = make_graph(seed, index=index)
    x = lay_out(randn(graph.num_nodes, features, seed=seed, dtype=dtype), layout)
    out = ops.edge_distance(x, graph)
    assert out.dtype == dtype
    assert_near(out, reference.edge_distance(x.double(), graph))


@given(SEEDS, SIZES, SIZES, any_float, any_integer, LAYOUTS, st.booleans())
def test_rbf_neighbor_sum_values(make_graph, assert_near, lay_out, seed, features, bases, dtype, index, layout, spread):
    graph = make_graph(seed, index=index)
    x = lay_out(randn(graph.num_nodes, features, seed=seed, dtype=dtype), layout)
    centers, gamma = basis(bases, seed, dtype)
    if spread:
        centers, gamma = centers.repeat_interleave(2)[::2], gamma[:1].expand(bases)
    exact = reference.rbf_neighbor_sum(x.double(), graph, centers.double(), gamma.double())
    out = ops.rbf_neighbor_sum(x, graph, centers, gamma)
    assert out.dtype == dtype
    assert_near(out, exact, 10.0 * graph.degree.unsqueeze(1))
    # The traced way goes over the distances.
    traced = ops.rbf_neighbor_sum(x.clone().requires_grad_(), graph, centers, gamma)
    assert_near(traced.detach(), exact, 10.0 * graph.degree.unsqueeze(1))


def test_nodes_close_together_and_far_from_the_origin_lose_no_digits():
    graph = GraphBatch.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
    step = torch.tensor([[0.0, 0.0], [2.0, 1.0], [1.0, -1.0]], dtype=torch.float64) * 2.0**-13
    far = (step + 1024).float().requires_grad_()
    exact = step.clone().requires_grad_()
    grad = randn(3, seed=1)
    found, expected = ops.edge_distance(far, graph), reference.edge_distance(exact, graph)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    (found,) = torch.autograd.grad(found, far, grad.float())
    (expected,) = torch.autograd.grad(expected, exact, grad)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_nan_stays_with_its_nodes(make_graph):
    graph = make_graph(4, sizes=[5, 6])
    x = randn(11, 3, seed=3, dtype=torch.float32)
    x[2, 1] = torch.nan
    hit = reference.edge_distance(x.double().nan_to_num(torch.inf), graph).isfinite().logical_not()
    hit |= (graph.target == 2) | (graph.col == 2)
    rows = torch.zeros(11, dtype=torch.bool).index_put((graph.target[hit],), torch.tensor(True))
    assert 0 < int(rows.sum()) < 11
    found = ops.rbf_neighbor_sum(x, graph, *basis(5, dtype=torch.float32)).isnan()
    assert torch.equal(found, rows.unsqueeze(1).expand(-1, 5))


def test_other_dtypes_get_the_reference(make_graph):
    graph = make_graph(1, sizes=[5, 4])
    x, (centers, gamma) = randn(9, 3, seed=0, dtype=torch.float16), basis(4, dtype=torch.float16)
    assert torch.equal(ops.edge_distance(x, graph), reference.edge_distance(x, graph))
    expected = reference.rbf_neighbor_sum(x, graph, centers, gamma)
    torch.testing.assert_close(ops.rbf_neighbor_sum(x, graph, centers, gamma), expected)
    gradients_are_near(
        lambda found, exact: torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.05),
        lambda x, centers, gamma: ops.rbf_neighbor_sum(x, graph, centers, gamma),
        lambda x, centers, gamma: reference.rbf_neighbor_sum(x, graph, centers, gamma),
        (x, centers, gamma),
        torch.ones_like(expected),
    )


@pytest.mark.parametrize(("sizes", "features", "bases"), [([], 3, 2), ([0, 0], 3, 2), ([3, 2], 0, 2), ([3, 2], 3, 0)])
def test_nothing(make_graph, sizes, features, bases):
    graph = make_graph(1, sizes=sizes)
    x, (centers, gamma) = randn(graph.num_nodes, features, seed=1), basis(bases)
    leaves = [t.requires_grad_() for t in (x, centers, gamma)]
    out = ops.rbf_neighbor_sum(x, graph, centers, gamma)
    assert out.shape == (graph.num_nodes, bases)
    assert [g.shape for g in torch.autograd.grad(out.sum(), leaves)] == [t.shape for t in leaves]
    if not features:
        at_once = ops.rbf_neighbor_sum(x.detach(), graph, centers.detach(), gamma.detach())
        torch.testing.assert_close(at_once, graph.degree.unsqueeze(1) * torch.exp(-gamma * centers**2).detach())
    lonely = GraphBatch.from_edge_index(torch.empty(2, 0, dtype=torch.int64), 4)
    assert not ops.rbf_neighbor_sum(torch.ones(4, 2), lonely, *basis(3, dtype=torch.float32)).any()
    assert ops.edge_distance(torch.ones(4, 2), lonely).shape == (0,)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def apart(seed=11):
    """A graph without self-loops, with an isolated node and duplicate edges: its distances have no corner."""
    edges = torch.tensor([[0, 1, 2, 1, 1, 3, 5, 6, 7, 5], [1, 0, 1, 2, 2, 0, 6, 5, 6, 7]])
    return GraphBatch.from_edge_index(edges, 8, ptr=torch.tensor([0, 5, 5, 8]))


def cases():
    graph = apart()
    edges = (*graph.incoming, *graph.outgoing)
    x, (centers, gamma) = leaf(8, 3, seed=1), basis(3, 4)
    centers.requires_grad_(), gamma.requires_grad_()
    space = torch.ops.graphgen
    form = (leaf(10, seed=2), leaf(8, 3, seed=3), ops.edge_distance(x.detach(), graph).requires_grad_(), centers, gamma)
    return {
        "edge_distance": (lambda x: ops.edge_distance(x, graph), (x,)),
        "rbf_neighbor_sum": (lambda x, c, g: ops.rbf_neighbor_sum(x, graph, c, g), (x, centers, gamma)),
        "edge_difference_dot": (lambda a, b: space.edge_difference_dot(a, b, *edges), (x, leaf(8, 3, seed=4))),
        "edge_laplacian": (lambda w, x: space.edge_laplacian(w, x, *edges), (leaf(10, seed=5), x)),
        "rbf_rows": (lambda w, d, c, g: space.rbf_rows(w, d, c, g, graph.rowptr, 2), (form[0], *form[2:])),
        "rbf_edges": (lambda r, d, c, g: space.rbf_edges(r, d, c, g, graph.rowptr, 1), form[1:]),
    }


CASES = cases()
PUBLIC = "edge_distance", "rbf_neighbor_sum"


@pytest.fixture(params=PUBLIC)
def case(request):
    return CASES[request.param]


class TestEveryCase(Promises):
    jacobian_tolerance = 1e-11

    def batch(self, inputs):
        """Of widths that stay positive."""
        return tuple(torch.stack([(1 + 0.1 * k) * t for k in range(4)]) for t in inputs)

    def test_tangents_have_two_derivatives(self, case):
        tangents_have_two_derivatives(*case)

    def test_compiled_by_inductor(self, case):
        compiles_whole(*case, backend="inductor")


@pytest.mark.parametrize("name", [name for name in CASES if name not in PUBLIC])
def test_the_kernels_of_the_derivatives_have_two_of_their_own(name):
    assert gradcheck(*CASES[name])
    assert gradgradcheck(*CASES[name])


def test_coincident_nodes_and_self_loops_push_nothing(make_graph):
    """Their edges are there for the values and add nothing to any derivative by x."""
    x = randn(5, 3, seed=1)
    x[3] = x[1]
    with_corners = GraphBatch.from_edge_index(torch.tensor([[0, 1, 2, 1, 4], [1, 0, 2, 3, 0]]), 5)
    without = GraphBatch.from_edge_index(torch.tensor([[0, 1, 4], [1, 0, 0]]), 5)
    centers, gamma = basis(4)
    grad = randn(5, 4, seed=2)

    def derivatives(graph):
        at = x.clone().requires_grad_()
        value = ops.rbf_neighbor_sum(at, graph, centers, gamma)
        (first,) = torch.autograd.grad(value, at, grad, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), at)
        return first.detach(), second

    for found, expected in zip(derivatives(with_corners), derivatives(without), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    value = ops.rbf_neighbor_sum(x, with_corners, centers, gamma)
    torch.testing.assert_close(value[2:4], torch.exp(-gamma * centers**2).expand(2, -1))
    reference_at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        reference.rbf_neighbor_sum(reference_at, with_corners, centers, gamma), reference_at, grad
    )
    torch.testing.assert_close(derivatives(with_corners)[0], expected, rtol=1e-12, atol=1e-14)


@given(SEEDS, SIZES, SIZES, any_float, any_integer)
def test_gradients_of_any_shape_and_dtype(make_graph, assert_near, seed, features, bases, dtype, index):
    graph = make_graph(seed, index=index)
    gradients_are_near(
        lambda found, exact: assert_near(found, exact, 30.0 * (1 + graph.num_edges) * (1 + bases)),
        lambda x, centers, gamma: ops.rbf_neighbor_sum(x, graph, centers, gamma),
        lambda x, centers, gamma: reference.rbf_neighbor_sum(x, graph, centers, gamma),
        (randn(graph.num_nodes, features, seed=seed, dtype=dtype), *basis(bases, seed, dtype)),
        randn(graph.num_nodes, bases, seed=seed + 1, dtype=dtype),
    )


# ---- torch.library ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INTEGERS)
def test_opcheck(make_graph, index):
    graph = make_graph(6, sizes=[4, 0, 3], index=index, types=0)
    n, e = graph.num_nodes, graph.num_edges
    edges = (*graph.incoming, *graph.outgoing)
    x, (centers, gamma) = leaf(n, 3, seed=1), basis(4)
    distance = (0.1 + randn(e, seed=2).abs()).requires_grad_()
    space = torch.ops.graphgen
    torch.library.opcheck(space.edge_distance.default, (x, *edges))
    torch.library.opcheck(space.edge_difference_dot.default, (x, leaf(n, 3, seed=3), *edges))
    torch.library.opcheck(space.edge_laplacian.default, (leaf(e, seed=4), x, *edges))
    rest = (distance, centers.requires_grad_(), gamma.requires_grad_(), graph.rowptr)
    torch.library.opcheck(space.rbf_rows.default, (None, *rest, 0))
    torch.library.opcheck(space.rbf_rows.default, (leaf(e, seed=5), *rest, 3))
    torch.library.opcheck(space.rbf_edges.default, (leaf(n, 4, seed=6), *rest, 1))


# ---- the same bits --------------------------------------------------------------------------------------------------


def everything(graph, x, centers, gamma, grad):
    """Values and gradients, with what they are per."""
    at = x.clone().requires_grad_()
    value = ops.rbf_neighbor_sum(at, graph, centers, gamma)
    untraced = ops.rbf_neighbor_sum(x, graph, centers, gamma)
    for part in (value, untraced, *torch.autograd.grad(value, at, grad)):
        yield part, "node"
    yield ops.edge_distance(x, graph), "edge"


@pytest.mark.parametrize("dtype", FLOATS)
def test_twenty_runs_and_any_number_of_threads_give_the_same_bits(make_graph, threads, dtype):
    graph = make_graph(1, sizes=[13] * 150 + [0, 700], edges_per_node=3)
    x, grad = randn(graph.num_nodes, 3, seed=1, dtype=dtype), randn(graph.num_nodes, 37, seed=2, dtype=dtype)
    arguments = (graph, x, *basis(37, dtype=dtype), grad)
    same_bits_every_time(threads, lambda: (part for part, _ in everything(*arguments)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("features", "bases"), [(3, 5), (16, 64), (1, 37)])
def test_a_graph_has_the_same_bits_alone_and_in_a_batch(make_graph, dtype, features, bases):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 300, 13, 7])
    x, grad = (randn(graph.num_nodes, k, seed=k, dtype=dtype) for k in (features, bases))
    centers, gamma = basis(bases, dtype=dtype)
    same_bits_alone_and_in_a_batch(
        graph, lambda graph, nodes, edges, graphs: everything(graph, x[nodes], centers, gamma, grad[nodes])
    )


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_shapes_dtypes_and_devices_that_do_not_fit(make_graph):
    graph = make_graph(1, sizes=[3, 2])
    x, centers, gamma = torch.zeros(5, 2), torch.zeros(4), torch.ones(4)
    calls = [
        lambda: ops.edge_distance(x[1:], graph),
        lambda: ops.edge_distance(x.to("meta"), graph),
        lambda: ops.rbf_neighbor_sum(x[:, 0], graph, centers, gamma),
        lambda: ops.rbf_neighbor_sum(x, graph, centers, gamma[1:]),
        lambda: ops.rbf_neighbor_sum(x, graph, centers[0], gamma[0]),
        lambda: ops.rbf_neighbor_sum(x, graph, centers.double(), gamma),
        lambda: ops.rbf_neighbor_sum(x, graph, centers, gamma.double()),
        lambda: ops.rbf_neighbor_sum(x, graph, centers, gamma.to("meta")),
    ]
    refused(calls, "edge_distance|rbf_neighbor_sum")
