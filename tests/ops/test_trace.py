import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from graphgen import GraphBatch, ops
from graphgen.ops.trace import xtrace as trace_by_subspace
from graphgen.ops.trace._divergence import EXACT_TANGENTS_PER_PRODUCT, choose_method
from graphgen.ops.trace.probes import draw_probe

FEATURES = 3
METHODS = ["exact", "hutchinson", "xtrace"]
DISTRIBUTIONS = ["rademacher", "normal", "sphere"]


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(seed, dtype=torch.float64):
    shapes = [(FEATURES, 5), (FEATURES, 5), (3, 5), (5, FEATURES), (FEATURES,)]
    return [0.5 * randn(*shape, seed=seed + k).to(dtype) for k, shape in enumerate(shapes)]


def field(graph, parts, time=0.3):
    """A small message passing field: nodes interact, channels interact, nothing is linear."""
    target, source, bias, out, shift = parts

    def f(x):
        hidden = ops.message_sum(ops.linear(x, target), ops.linear(x, source), bias, graph, "silu")
        return ops.activation(ops.linear(hidden, out, shift) + time * x, "tanh")

    return f


def dense_traces(f, x, graph):
    """[B] from the whole Jacobian, by reverse mode."""
    size = x.numel()
    if size == 0:
        return x.new_zeros(graph.num_graphs)
    jacobian = torch.func.jacrev(f)(x).reshape(size, size)
    diagonal = jacobian.diagonal().reshape(x.shape).sum(1)
    return torch.stack([diagonal[a:b].sum() for a, b in zip(graph.ptr, graph.ptr[1:], strict=False)])


@settings(max_examples=200)
@given(seed=st.integers(0, 10**6), index=st.sampled_from([torch.int32, torch.int64]))
def test_exact_is_the_trace_of_the_dense_jacobian(make_graph, seed, index):
    graph = make_graph(seed, index=index)
    x, f = randn(graph.num_nodes, FEATURES, seed=seed), field(graph, weights(seed))
    value, trace, error = ops.divergence(f, x, graph, method="exact")
    assert torch.equal(value, f(x))
    assert trace.shape == error.shape == (graph.num_graphs,)
    assert float((trace - dense_traces(f, x, graph)).abs().sum()) < 1e-10
    assert not bool(error.any())


@pytest.mark.parametrize("chunk", [1, 50, 10**9])
def test_exact_does_not_depend_on_its_chunks(make_graph, monkeypatch, chunk):
    graph = make_graph(2, sizes=[4, 0, 6])
    x, f = randn(10, FEATURES, seed=1), field(graph, weights(2))
    monkeypatch.setattr("graphgen.ops.trace.exact._CHUNK_NUMBERS", chunk)
    trace = ops.divergence(f, x, graph, method="exact")[1]
    assert float((trace - dense_traces(f, x, graph)).abs().max()) < 1e-10


def copies(one, count):
    """The same graph many times: many independent estimates of one number."""
    shifts = one.num_nodes * torch.arange(count).repeat_interleave(one.num_edges)
    return GraphBatch.from_edge_index(
        one.edge_index.repeat(1, count) + shifts,
        one.num_nodes * count,
        ptr=one.num_nodes * torch.arange(count + 1),
        edge_attr=one.edge_attr.repeat(count),
    )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_hutchinson_is_unbiased_and_its_error_is_calibrated(make_graph, distribution):
    molecules, probes = 200, 64
    one = make_graph(5, sizes=[6])
    graph = copies(one, molecules)
    x, parts = randn(6, FEATURES, seed=3), weights(4)
    exact = ops.divergence(field(one, parts), x, one, method="exact")[1]
    value, trace, error = ops.divergence(
        field(graph, parts), x.repeat(molecules, 1), graph, probes=probes, distribution=distribution, seed=11
    )
    assert torch.allclose(value, field(graph, parts)(x.repeat(molecules, 1)), atol=1e-14)
    score = (trace - exact) / error
    assert abs(float(score.mean())) < 4 / molecules**0.5
    # Student's t with 63 degrees of freedom has variance 1.033; four standard errors of 200 of them.
    assert 0.6 < float(score.var()) < 1.5
    spread = float((trace - exact).std())
    assert 0.8 < float(error.mean()) / spread < 1.25


@pytest.mark.parametrize("how", [*({"distribution": d} for d in DISTRIBUTIONS), {"method": "xtrace", "probes": 8}])
def test_two_thousand_estimates_have_the_right_mean(make_graph, how):
    one, parts = make_graph(8, sizes=[6]), weights(5)
    x, graph = randn(6, FEATURES, seed=2), copies(one, 2000)
    exact = dense_traces(field(one, parts), x, one)
    estimates = ops.divergence(field(graph, parts), x.repeat(2000, 1), graph, seed=9, **how)[1]
    assert abs(float((estimates - exact).mean())) < 4 * float(estimates.std()) / 2000**0.5
    assert float(estimates.std()) > 0.01


@pytest.mark.parametrize("how", [*({"distribution": d} for d in DISTRIBUTIONS), {"method": "xtrace", "probes": 8}])
def test_two_thousand_gradients_have_the_right_mean(make_graph, how):
    one, parts = make_graph(8, sizes=[4]), weights(5)
    x, graph = randn(4, FEATURES, seed=2), copies(one, 2000)
    (exact,) = torch.autograd.grad(dense_traces(field(one, parts), x.requires_grad_(), one), x)
    many = x.detach().repeat(2000, 1).requires_grad_()
    (found,) = torch.autograd.grad(ops.divergence(field(graph, parts), many, graph, seed=9, **how)[1].sum(), many)
    found = found.view(2000, -1)
    score = (found.mean(0) - exact.flatten()) / (found.std(0) / 2000**0.5)
    assert float(score.abs().max()) < 4


def test_probes_on_the_sphere_have_its_radius_and_covariance_one(make_graph):
    graph = make_graph(1, sizes=[4, 0, 1])
    draws = torch.stack([draw_probe(graph, 2, "sphere", 3, k, None, torch.float64) for k in range(4000)])
    lengths = ops.graph_dot(draws[0], draws[0], graph.ptr)
    torch.testing.assert_close(lengths, torch.tensor([8.0, 0.0, 2.0], dtype=torch.float64))
    flat = draws[:, :4].flatten(1)
    assert float((flat.t() @ flat / 4000 - torch.eye(8)).abs().max()) < 4 * (1.4 / 4000) ** 0.5
    assert float(draws.mean(0).abs().max()) < 4 / 4000**0.5
    _, trace, error = ops.divergence(lambda t: 3 * t, draws[0], graph, distribution="sphere", probes=2)
    torch.testing.assert_close(trace, torch.tensor([24.0, 0.0, 6.0], dtype=torch.float64))
    assert float(error.max()) < 1e-12


def linear_field(matrix, graph):
    """Every graph's state times the same matrix."""
    return lambda x: (x.view(graph.num_graphs, -1) @ matrix.t()).view(x.shape)


def empty_graphs(nodes, count):
    nothing = torch.empty(2, 0, dtype=torch.int64)
    return GraphBatch.from_edge_index(nothing, nodes * count, ptr=nodes * torch.arange(count + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_xtrace_is_exact_where_the_rank_is_small(rank, dtype):
    nodes, size, count = 7, 21, 50
    graph = empty_graphs(nodes, count)
    matrix = (randn(size, rank, seed=1) @ randn(rank, size, seed=2)).to(dtype)
    x = randn(nodes * count, FEATURES, seed=3).to(dtype)
    _, trace, error = ops.divergence(linear_field(matrix, graph), x, graph, method="xtrace", probes=12)
    room = 2000 * torch.finfo(dtype).eps * float(matrix.norm())
    assert float((trace - matrix.trace()).abs().max()) <= room
    assert float(error.max()) <= room


def test_xtrace_is_exact_for_graphs_of_no_more_numbers_than_products(make_graph):
    graph = make_graph(4, sizes=[1, 0, 2, 3, 4, 9])
    x, f = randn(graph.num_nodes, FEATURES, seed=1), field(graph, weights(3))
    expected = dense_traces(f, x, graph)
    for probes in (2, 3, 6, 9, 12, 13):
        _, trace, error = ops.divergence(f, x, graph, method="xtrace", probes=probes)
        small = graph.ptr.diff() * FEATURES <= probes // 2 * 2
        assert float((trace - expected)[small].abs().sum()) < 1e-12
        assert not bool(error[small].any())
        assert bool(((trace - expected)[~small].abs() > 1e-6).all())
        assert bool(error[~small].isnan().all() if probes < 4 else (error[~small] > 0).all())


def test_xtrace_learns_a_spectrum_that_decays():
    """The reason it is there: where few directions matter, its error falls faster than one over the root of probes."""
    nodes, size, count = 10, 30, 200
    graph = empty_graphs(nodes, count)
    basis = torch.linalg.qr(randn(size, size, seed=1))[0]
    matrix = basis @ torch.diag(0.5 ** torch.arange(size)).double() @ basis.t()
    x = randn(nodes * count, FEATURES, seed=3)
    spread = {}
    for method in ("xtrace", "hutchinson"):
        _, trace, error = ops.divergence(linear_field(matrix, graph), x, graph, method=method, probes=16, seed=1)
        miss = (trace - matrix.trace()).abs()
        spread[method] = float(miss.square().mean().sqrt())
        # Two standard errors cover about 95 % of normal errors.
        assert 0.8 < float((miss < 2 * error).double().mean()) < 0.99
    assert spread["xtrace"] < 0.1 * spread["hutchinson"]


def test_a_gradient_of_xtrace_holds_its_subspace(make_graph, monkeypatch):
    """Then it is the gradient of what the same vectors give: the fixed parts are taken from a first run."""
    graph = make_graph(4, sizes=[4, 0, 5], edges_per_node=1.5)
    x, parts = randn(9, FEATURES, seed=1), [part.requires_grad_() for part in weights(6)]
    spans = []
    find = trace_by_subspace._span
    monkeypatch.setattr(trace_by_subspace, "_span", lambda *args: spans.append(find(*args)) or spans[-1])

    def run(x, *parts):
        return ops.divergence(field(graph, parts), x, graph, method="xtrace", probes=6, seed=3)[:2]

    run(x, *parts)
    monkeypatch.setattr(trace_by_subspace, "_span", lambda *_: spans[0])
    assert gradcheck(run, (x.requires_grad_(), *parts))


@pytest.mark.parametrize(("numbers", "probes"), [(0, 1), (4, 1), (45, 1), (45, 24), (45, 48), (342, 12), (342, 400)])
def test_auto_is_the_method_it_chooses(numbers, probes):
    chosen = choose_method(numbers, probes, 1, None)
    assert chosen == ("exact" if numbers <= probes * EXACT_TANGENTS_PER_PRODUCT else chosen)
    graph = empty_graphs(numbers, 1)
    x = randn(numbers, 1, seed=1).float()
    f = linear_field(randn(numbers, numbers, seed=2).float(), graph)
    found, expected = (ops.divergence(f, x, graph, method=method, probes=probes) for method in ("auto", chosen))
    assert all(torch.equal(a, b) or bool((a.isnan() & b.isnan()).all()) for a, b in zip(found, expected, strict=True))


def test_auto_counts_less_for_a_field_that_says_how_far_it_looks():
    assert [choose_method(45, probes, 5, 2) for probes in (4, 14, 15)] == ["hutchinson", "xtrace", "exact"]
    assert choose_method(342, 45, 9, 2) == "exact" and choose_method(342, 45, 9, 3) == "xtrace"


def test_rademacher_probes_are_exact_for_a_diagonal_jacobian(make_graph):
    graph = make_graph(1, sizes=[4, 3])
    x = randn(7, 5, seed=1)
    _, trace, error = ops.divergence(lambda t: ops.activation(t, "tanh"), x, graph, probes=3)
    expected = ops.segment_reduce((1 - x.tanh() ** 2).sum(1, keepdim=True), graph.ptr)[:, 0]
    torch.testing.assert_close(trace, expected, rtol=1e-12, atol=1e-12)
    assert float(error.max()) < 1e-12


def test_one_probe_has_no_error_estimate_and_a_seed_fixes_the_probes(make_graph):
    graph = make_graph(1, sizes=[4, 3])
    x, f = randn(7, FEATURES, seed=1), field(graph, weights(1))
    _, first, error = ops.divergence(f, x, graph, seed=5)
    assert bool(error.isnan().all())
    assert torch.equal(first, ops.divergence(f, x, graph, seed=5)[1])
    assert not torch.equal(first, ops.divergence(f, x, graph, seed=6)[1])


def alone(graph, g):
    nodes = slice(int(graph.ptr[g]), int(graph.ptr[g + 1]))
    edges = slice(int(graph.rowptr[nodes.start]), int(graph.rowptr[nodes.stop]))
    one = GraphBatch.from_edge_index(
        graph.edge_index[:, edges] - nodes.start, nodes.stop - nodes.start, edge_attr=graph.edge_attr[edges]
    )
    return one, nodes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_batch_mates_do_not_change_a_bit(make_graph, method, dtype):
    graph = make_graph(21, sizes=[5, 0, 9, 1, 23, 4])
    x, parts = randn(graph.num_nodes, FEATURES, seed=1).to(dtype), weights(3, dtype)
    ids = torch.tensor([7, 1, 2**33, 4, 9, 0])

    def run(graph, x, ids):
        probe = dict(probes=7, distribution="sphere", seed=2, graph_ids=ids)
        return ops.divergence(field(graph, parts), x, graph, method=method, **probe)

    value, trace, error = run(graph, x, ids)
    for g in range(graph.num_graphs):
        one, nodes = alone(graph, g)
        mine = run(one, x[nodes], ids[g : g + 1])
        assert torch.equal(mine[0], value[nodes])
        assert torch.equal(mine[1], trace[g : g + 1])
        assert torch.equal(mine[2], error[g : g + 1])


@pytest.mark.parametrize("method", ["exact", "hutchinson"])
def test_traces_are_differentiable_in_state_and_weights(make_graph, method):
    graph = make_graph(4, sizes=[2, 0, 3], edges_per_node=1.5)
    x = randn(5, FEATURES, seed=1).requires_grad_()
    parts = [part.requires_grad_() for part in weights(6)]

    def run(x, *parts):
        value, trace, _ = ops.divergence(field(graph, parts), x, graph, method=method, probes=2, seed=3)
        return value, trace

    assert gradcheck(run, (x, *parts))


def test_a_hutchinson_trace_has_second_derivatives(make_graph):
    graph = make_graph(4, sizes=[2, 1], edges_per_node=1.5)
    x = randn(3, FEATURES, seed=1).requires_grad_()
    parts = weights(6)
    assert gradgradcheck(lambda t: ops.divergence(field(graph, parts), t, graph, seed=3)[1], (x,))


def test_gradients_of_the_exact_trace_are_those_of_the_dense_one(make_graph):
    graph = make_graph(14, sizes=[4, 5])
    x = randn(9, FEATURES, seed=1)
    parts = [part.requires_grad_() for part in weights(8)]
    scale = randn(2, seed=9)
    found = torch.autograd.grad((ops.divergence(field(graph, parts), x, graph, method="exact")[1] * scale).sum(), parts)
    expected = torch.autograd.grad((dense_traces(field(graph, parts), x, graph) * scale).sum(), parts)
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max()) < 1e-10


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_nothing_has_no_divergence(make_graph, method, sizes):
    graph = make_graph(1, sizes=sizes)
    value, trace, _ = ops.divergence(
        field(graph, weights(1)), torch.zeros(0, FEATURES, dtype=torch.float64), graph, method=method, probes=2
    )
    assert value.shape == (0, FEATURES)
    assert trace.tolist() == [0.0] * len(sizes)


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "magic"},
        {"distribution": "uniform"},
        {"probes": 0},
        {"method": "xtrace", "probes": 1},
    ],
)
def test_what_is_unknown_is_refused(make_graph, arguments):
    graph = make_graph(1, sizes=[3])
    with pytest.raises(ValueError, match="divergence"):
        ops.divergence(lambda t: t, torch.zeros(3, 2), graph, **arguments)
