import pytest
import torch
from draws import SEEDS, any_integer, randn
from hypothesis import given
from promises import dense_traces, same_bits_alone_and_in_a_batch
from torch.autograd import gradcheck, gradgradcheck

from graphgen import GraphBatch, ops

FEATURES = 3


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


@given(seed=SEEDS, index=any_integer)
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


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_hutchinson_is_unbiased_and_its_error_is_calibrated(make_graph, distribution):
    molecules, probes = 200, 64
    one = make_graph(5, sizes=[6])
    # The same graph many times: many independent estimates of one number.
    shifts = 6 * torch.arange(molecules).repeat_interleave(one.num_edges)
    graph = GraphBatch.from_edge_index(
        one.edge_index.repeat(1, molecules) + shifts,
        6 * molecules,
        ptr=6 * torch.arange(molecules + 1),
        edge_attr=one.edge_attr.repeat(molecules),
    )
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact", "hutchinson"])
def test_batch_mates_do_not_change_a_bit(make_graph, method, dtype):
    graph = make_graph(21, sizes=[5, 0, 9, 1, 23, 4])
    x, parts = randn(graph.num_nodes, FEATURES, seed=1).to(dtype), weights(3, dtype)
    ids = torch.tensor([7, 1, 2**33, 4, 9, 0])

    def results(graph, nodes, edges, graphs):
        out = ops.divergence(
            field(graph, parts), x[nodes], graph, method=method, probes=3, seed=2, graph_ids=ids[graphs]
        )
        return zip(out, ("node", "graph", "graph"), strict=True)

    same_bits_alone_and_in_a_batch(graph, results)


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


@pytest.mark.parametrize("method", ["exact", "hutchinson"])
@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_nothing_has_no_divergence(make_graph, method, sizes):
    graph = make_graph(1, sizes=sizes)
    value, trace, _ = ops.divergence(
        field(graph, weights(1)), torch.zeros(0, FEATURES, dtype=torch.float64), graph, method=method
    )
    assert value.shape == (0, FEATURES)
    assert trace.tolist() == [0.0] * len(sizes)


@pytest.mark.parametrize(
    "arguments", [{"method": "magic"}, {"distribution": "uniform"}, {"probes": 0}], ids=lambda a: next(iter(a))
)
def test_what_is_unknown_is_refused(make_graph, arguments):
    graph = make_graph(1, sizes=[3])
    with pytest.raises(ValueError, match="divergence"):
        ops.divergence(lambda t: t, torch.zeros(3, 2), graph, **arguments)
