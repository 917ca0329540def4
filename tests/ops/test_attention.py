"""neighbor_attention against its twin in plain torch."""

import pytest
import torch
from draws import FLOATS, INTEGERS, SEEDS, any_float, any_integer, randn
from hypothesis import given, settings
from hypothesis import strategies as st
from promises import Promises, gradients_are_near, refused, same_bits_alone_and_in_a_batch, same_bits_every_time

from graphgen import GraphBatch, ops
from graphgen.ops import reference

# Below, at and above the widths of vectors, and of the heads done at a time.
HEADS = st.sampled_from([0, 1, 2, 4, 7, 8, 9, 17])
WIDTHS = st.sampled_from([0, 1, 3, 8, 16, 17, 40, 70])


def inputs_of(graph, heads, width, value_width, seed, dtype=torch.float64):
    n = graph.num_nodes
    widths = (width, width, value_width)
    q, k, v = (randn(n, heads, w, seed=seed + at, dtype=dtype) for at, w in enumerate(widths))
    return q, k, v, randn(graph.num_edges, heads, seed=seed + 3, dtype=dtype)


def check(assert_near, graph, q, k, v, bias, scale=None):
    out = ops.neighbor_attention(q, k, v, graph, bias, scale)
    assert out.dtype == v.dtype and out.is_contiguous()
    wide = (None if t is None else t.double() for t in (bias, q, k, v))
    bias, q, k, v = wide
    exact = reference.neighbor_attention(q, k, v, graph, bias, scale)
    # The logits are sums too: a relative error of theirs is one of the weights.
    size = reference.neighbor_attention(q, k, v.abs(), graph, bias, scale)
    steep = (abs(scale) if scale else 1.0) * (1 + q.abs().sum(2).max() * k.abs().max() if q.numel() else 1.0)
    assert_near(out, exact, 2 * size * steep)


@given(SEEDS, HEADS, WIDTHS, WIDTHS, any_float, any_integer, st.booleans())
@settings(max_examples=80)
def test_values(make_graph, assert_near, seed, heads, width, value_width, dtype, index, biased):
    graph = make_graph(seed, index=index)
    q, k, v, bias = inputs_of(graph, heads, width, value_width, seed, dtype)
    check(assert_near, graph, q, k, v, bias if biased else None, None if seed % 2 else 0.3)


def test_strided_and_expanded_inputs(make_graph, assert_near):
    graph = make_graph(3, sizes=[5, 0, 7])
    q, k, v, bias = inputs_of(graph, 3, 4, 5, 1)
    check(assert_near, graph, q.movedim(0, 2).contiguous().movedim(2, 0), k[:1].expand_as(k), v.flip(2), bias)
    check(assert_near, graph, q, k, v[..., ::2], bias[:, :1].expand_as(bias))


@pytest.mark.parametrize("degree", [255, 256, 257, 600])
def test_a_node_of_many_neighbours(assert_near, degree):
    source = torch.arange(degree + 2) % 5
    target = torch.cat([torch.zeros(1), torch.ones(degree), torch.full((1,), 2)]).long()
    graph = GraphBatch.from_edge_index(torch.stack([source, target]), 6)
    check(assert_near, graph, *inputs_of(graph, 9, 6, 5, degree))


def test_weights_are_a_softmax_whatever_the_size_of_the_logits(make_graph):
    graph = make_graph(5, sizes=[6, 5])
    q, k, v, bias = inputs_of(graph, 2, 3, 4, 1, torch.float32)
    connected = graph.degree > 0
    for size in (1e-3, 1.0, 1e3, 1e15):
        out = ops.neighbor_attention(size * q, k, torch.ones_like(v), graph, bias)
        torch.testing.assert_close(out[connected], torch.ones_like(out[connected]), rtol=1e-5, atol=1e-5)
        assert bool((out[~connected] == 0).all())
    alike = ops.neighbor_attention(torch.zeros_like(q), k, v, graph)
    torch.testing.assert_close(alike, ops.neighbor_reduce(v, graph, reduce="mean"), rtol=1e-5, atol=1e-6)


def test_closed_edges_and_nan():
    graph = GraphBatch.from_edge_index(torch.tensor([[0, 1, 2, 0], [3, 3, 3, 1]]), 4)
    q, k, v, _ = inputs_of(graph, 1, 2, 2, 1)
    inf = torch.inf
    # In the order of graph.col, edge 0 enters node 1.
    closed = torch.tensor([[-inf], [-inf], [0.0], [-inf]], dtype=torch.float64)
    out = ops.neighbor_attention(q, k, v, graph, closed)
    torch.testing.assert_close(out[3], v[1])
    assert out[1].isnan().all() and out[0].eq(0).all() and out[2].eq(0).all()
    k[2] = torch.nan
    out = ops.neighbor_attention(q, k, v, graph)
    assert out[3].isnan().all() and torch.equal(out[1], v[0])


def test_other_dtypes_get_the_reference(make_graph):
    graph = make_graph(1, sizes=[5, 4])
    parts = inputs_of(graph, 2, 3, 4, 1, torch.float16)
    out = ops.neighbor_attention(*parts[:3], graph, parts[3])
    assert torch.equal(out, reference.neighbor_attention(*parts[:3], graph, parts[3]))


CASES = ["plain", "biased", "one head"]


@pytest.fixture(params=CASES)
def case(request, make_graph):
    """The op and float64 leaves, on graphs with empty and isolated parts."""
    graph = make_graph(11, sizes=[4, 0, 3, 1], edges_per_node=1.5)
    heads = 1 if request.param == "one head" else 2
    *parts, bias = (t.requires_grad_() for t in inputs_of(graph, heads, 2, 3, 1))
    leaves = (*parts, bias) if request.param == "biased" else tuple(parts)
    return lambda q, k, v, *b: ops.neighbor_attention(q, k, v, graph, *b), leaves


class TestEveryCase(Promises):
    pass


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_against_the_twin(make_graph, dtype):
    graph = make_graph(4, sizes=[30, 1, 20])
    parts = inputs_of(graph, 4, 16, 8, 1, dtype)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]
    gradients_are_near(
        lambda found, exact: torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance),
        lambda q, k, v, bias: ops.neighbor_attention(q, k, v, graph, bias),
        lambda q, k, v, bias: reference.neighbor_attention(q, k, v, graph, bias),
        parts,
        randn(graph.num_nodes, 4, 8, seed=9, dtype=dtype),
    )


@pytest.mark.parametrize("index", INTEGERS)
def test_opcheck(make_graph, index):
    graph = make_graph(6, sizes=[4, 0, 3], index=index)
    q, k, v, bias = (t.flatten(1).requires_grad_() for t in inputs_of(graph, 2, 3, 4, 1))
    edges = (*graph.incoming, *graph.outgoing)
    for given_bias in (bias, None):
        arguments = (q, k, v, given_bias, *edges, 2, 0.5)
        torch.library.opcheck(torch.ops.graphgen.neighbor_attention.default, arguments)


@pytest.mark.parametrize("sizes", [[], [0, 0], [3]])
def test_nothing(make_graph, sizes):
    graph = make_graph(1, sizes=sizes, edges_per_node=0)
    q, k, v, bias = (t.requires_grad_() for t in inputs_of(graph, 2, 3, 4, 1))
    out = ops.neighbor_attention(q, k, v, graph, bias)
    assert out.shape == (graph.num_nodes, 2, 4) and bool((out == 0).all())
    for part, grad in zip((q, k, v, bias), torch.autograd.grad(out.sum(), (q, k, v, bias)), strict=True):
        assert grad.shape == part.shape and bool((grad == 0).all())


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_same_bits_in_any_run_thread_or_batch(make_graph, threads, dtype):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 900, 13, 7, 700])
    q, k, v, bias = inputs_of(graph, 4, 16, 5, 1, dtype)

    def results(graph, nodes, edges, graphs):
        yield ops.neighbor_attention(q[nodes], k[nodes], v[nodes], graph, bias[edges]), "node"

    everything = slice(None)
    same_bits_every_time(threads, lambda: (out for out, _ in results(graph, everything, everything, everything)))
    same_bits_alone_and_in_a_batch(graph, results)


def test_shapes_and_dtypes_that_do_not_fit(make_graph):
    graph = make_graph(1, sizes=[3, 2])
    q, k, v, bias = inputs_of(graph, 2, 3, 4, 1)
    calls = [
        lambda: ops.neighbor_attention(q[:4], k, v, graph),
        lambda: ops.neighbor_attention(q, k[..., :2], v, graph),
        lambda: ops.neighbor_attention(q, k, v[:, :1], graph),
        lambda: ops.neighbor_attention(q, k, v[..., 0], graph),
        lambda: ops.neighbor_attention(q.flatten(1), k.flatten(1), v.flatten(1), graph),
        lambda: ops.neighbor_attention(q, k, v.float(), graph),
        lambda: ops.neighbor_attention(q, k, v, graph, bias[:, :1]),
        lambda: ops.neighbor_attention(q, k, v, graph, bias.float()),
        lambda: ops.neighbor_attention(q, k, v.to("meta"), graph),
    ]
    refused(calls, r"^neighbor_attention: ")
