"""Traces of fields that say how far they look."""

import pytest
import torch
from draws import SEEDS, any_integer, randn
from hypothesis import given
from hypothesis import strategies as st
from promises import dense_traces, same_bits_alone_and_in_a_batch
from torch.autograd import gradcheck, gradgradcheck

from graphgen import GraphBatch, ops
from graphgen.fields import NeighbourhoodField
from graphgen.ops.trace import local

CHANNELS = 3


def velocity(graph, rounds, seed=0, t=None):
    """A field with all that the graph CNF has: time, messages, a softmax."""
    torch.manual_seed(seed)
    bound = NeighbourhoodField(CHANNELS, 3, hidden=4, layers=rounds, context_layers=1).double().bind(graph)
    t = torch.linspace(0, 1, graph.num_graphs, dtype=torch.float64) if t is None else t
    sharpness = ops.segment_broadcast(t.unsqueeze(1), graph.ptr, graph.num_nodes)
    return lambda x: ops.softmax(sharpness * x + bound(t, x)) * 3.0 + x * 0.5 + 1.0


@given(seed=SEEDS, rounds=st.integers(0, 4), index=any_integer)
def test_the_trace_on_balls_is_that_of_the_dense_jacobian(make_graph, seed, rounds, index):
    graph = make_graph(seed, index=index)
    f, x = velocity(graph, rounds, seed), randn(graph.num_nodes, CHANNELS, seed=seed)
    value, trace, error = ops.divergence(f, x, graph, "exact", reach=rounds)
    torch.testing.assert_close(value, f(x), rtol=1e-12, atol=1e-12)
    expected = dense_traces(f, x, graph).detach()
    assert float((trace.detach() - expected).abs().sum()) < 1e-10
    assert not bool(error.any())
    with torch.no_grad():  # by the kernel that stores nothing by slot
        assert float((ops.divergence(f, x, graph, "exact", reach=rounds)[1] - expected).abs().sum()) < 1e-10
        assert float((ops.divergence(f, x, graph, "exact", reach=rounds + 1)[1] - expected).abs().sum()) < 1e-10


def test_a_reach_given_too_short_is_seen():
    ring = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])
    graph = GraphBatch.from_edge_index(ring, 4, edge_attr=torch.zeros(8, dtype=torch.long))
    f, x = velocity(graph, 3), randn(4, CHANNELS, seed=1)
    right = dense_traces(f, x, graph)
    assert float((ops.divergence(f, x, graph, "exact", reach=3)[1] - right).abs()) < 1e-12
    for reach in (1, 2):
        with pytest.raises(ValueError, match="reach, "):
            ops.divergence(f, x, graph, "exact", reach=reach)


@pytest.mark.parametrize("rows", [1, 50, 10**9])
def test_chunks_do_not_change_a_bit(make_graph, monkeypatch, rows):
    x = randn(11, CHANNELS, seed=3)
    expected = ops.divergence(velocity(graph := make_graph(4, sizes=[5, 0, 6]), 2), x, graph, "exact", reach=2)[1]
    monkeypatch.setattr(local, "_CHUNK_ROWS", rows)
    graph = make_graph(4, sizes=[5, 0, 6])
    assert torch.equal(ops.divergence(velocity(graph, 2), x, graph, "exact", reach=2)[1], expected)


@pytest.mark.parametrize("method", ["exact", "hutchinson"])
def test_batch_mates_do_not_change_a_bit(make_graph, method):
    whole = make_graph(5, sizes=[4, 3, 6])
    x = randn(13, CHANNELS, seed=6)
    ids = torch.tensor([7, 8, 9])
    times = torch.linspace(0, 1, 3, dtype=torch.float64)

    def results(graph, nodes, edges, graphs):
        f = velocity(graph, 2, t=times[graphs])
        yield ops.divergence(f, x[nodes], graph, method, seed=1, graph_ids=ids[graphs], reach=2)[1], "graph"

    same_bits_alone_and_in_a_batch(whole, results)


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_hutchinson_is_the_same_with_the_stand_in(make_graph, distribution):
    graph = make_graph(7, sizes=[4, 0, 5])
    f, x = velocity(graph, 2), randn(9, CHANNELS, seed=8)
    plain = ops.divergence(f, x, graph, probes=3, distribution=distribution, seed=2)
    quick = ops.divergence(f, x, graph, probes=3, distribution=distribution, seed=2, reach=2)
    for a, b in zip(plain, quick, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["exact", "hutchinson"])
def test_derivatives(make_graph, method):
    graph = make_graph(9, sizes=[3, 2])
    weight = randn(CHANNELS, CHANNELS, seed=1).requires_grad_()
    bias = randn(3, CHANNELS, seed=2).requires_grad_()
    x = randn(5, CHANNELS, seed=3).requires_grad_()

    def of(x, weight, bias):
        def f(z):
            h = ops.linear(z, weight)
            return ops.activation(ops.message_sum(h, h, bias, graph, "tanh") + z, "silu")

        value, trace, _ = ops.divergence(f, x, graph, method, seed=4, reach=1)
        return value, trace

    assert gradcheck(of, (x, weight, bias))
    assert gradgradcheck(of, (x, weight, bias))


def test_a_field_made_of_something_else_is_refused(make_graph):
    graph = make_graph(1, sizes=[3])
    x = randn(3, CHANNELS, seed=1)
    for method in ("exact", "hutchinson"):
        for f in (torch.sin, lambda z: x):
            with pytest.raises(TypeError):
                ops.divergence(f, x, graph, method, reach=1)
