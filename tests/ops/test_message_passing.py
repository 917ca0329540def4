from dataclasses import replace

import pytest
import torch
from draws import FLOATS, INTEGERS, LAYOUTS, SEEDS, any_float, any_integer, leaf, ragged, randn
from hypothesis import given
from hypothesis import strategies as st
from promises import (
    Promises,
    gradients_are_near,
    refused,
    same_bits_alone_and_in_a_batch,
    same_bits_every_time,
    tangents_have_two_derivatives,
    third_derivatives_are_the_last,
)

from graphgen import GraphBatch, ops
from graphgen.ops import reference

REDUCES = ["sum", "mean"]
ACTIVATIONS = ["silu", "tanh"]
# Below, at and above the widths of the vectors of each instruction set, and a tile of four with a rest.
FEATURES = st.sampled_from([0, 1, 3, 5, 8, 15, 16, 17, 31, 33, 64, 70])


# ---- values ---------------------------------------------------------------------------------------------------------


@given(SEEDS, FEATURES, any_float, any_integer, st.sampled_from(REDUCES), LAYOUTS)
def test_segment_reduce_values(assert_near, lay_out, seed, features, dtype, index, reduce, layout):
    ptr, rows = ragged(seed, index)
    src = lay_out(randn(rows, features, seed=seed, dtype=dtype), layout)
    out = ops.segment_reduce(src, ptr, reduce)
    assert out.dtype == dtype
    exact = src.double()
    assert_near(
        out,
        reference.segment_reduce(exact, ptr.long(), reduce),
        reference.segment_reduce(exact.abs(), ptr.long(), reduce),
    )


@given(SEEDS, FEATURES, any_float, any_integer, st.sampled_from(REDUCES), LAYOUTS)
def test_segment_broadcast_values(assert_near, lay_out, seed, features, dtype, index, reduce, layout):
    ptr, rows = ragged(seed, index)
    src = lay_out(randn(ptr.numel() - 1, features, seed=seed, dtype=dtype), layout)
    out = ops.segment_broadcast(src, ptr, rows, reduce)
    assert out.dtype == dtype
    assert_near(out, reference.segment_broadcast(src.double(), ptr.long(), rows, reduce), 0.0)


@given(
    SEEDS,
    FEATURES,
    any_float,
    any_integer,
    st.sampled_from(ACTIVATIONS),
    LAYOUTS,
    LAYOUTS,
    st.sampled_from([0, 1, 4]),
)
def test_message_sum_values(
    make_graph, assert_near, lay_out, seed, features, dtype, index, activation, layout, other, types
):
    graph = make_graph(seed, index=index, types=types)
    target = lay_out(randn(graph.num_nodes, features, seed=seed, dtype=dtype), layout)
    source = lay_out(randn(graph.num_nodes, features, seed=seed + 1, dtype=dtype), other)
    bias = lay_out(randn(max(types, 1) + 1, features, seed=seed + 2, dtype=dtype), layout)
    out = ops.message_sum(target, source, bias, graph, activation)
    assert out.dtype == dtype
    exact = reference.message_sum(target.double(), source.double(), bias.double(), graph, activation)
    assert_near(out, exact, 3.0 * graph.degree.unsqueeze(1))


def test_message_sum_holds_far_out(make_graph):
    graph = make_graph(2, sizes=[6, 5])
    for size in (30.0, 90.0, 1e3, 1e30):
        part = size * randn(11, 9, seed=1, dtype=torch.float32)
        none, bias = torch.zeros_like(part), torch.zeros(3, 9)
        for activation in ACTIVATIONS:
            out = ops.message_sum(part, none, bias, graph, activation)
            exact = reference.message_sum(part.double(), none.double(), bias.double(), graph, activation)
            assert torch.allclose(out.double(), exact, rtol=1e-5, atol=1e-5)


def test_nan_goes_where_its_edges_go_and_nowhere_else(make_graph):
    graph = make_graph(4, sizes=[5, 6])
    source = randn(11, 7, seed=3, dtype=torch.float32)
    source[2, 4] = torch.nan
    hit = reference.neighbor_reduce(source, graph).isnan()
    assert 0 < int(hit.sum()) < hit.numel()
    zero = torch.zeros_like(source)
    for activation in ACTIVATIONS:
        assert torch.equal(ops.message_sum(zero, source, torch.zeros(3, 7), graph, activation).isnan(), hit)


def test_more_dimensions_are_carried_along():
    src, ptr = randn(7, 2, 3, seed=0), torch.tensor([0, 3, 3, 7])
    assert torch.equal(ops.segment_reduce(src, ptr), ops.segment_reduce(src.flatten(1), ptr).view(3, 2, 3))
    assert torch.equal(ops.segment_reduce(src[:, 0, 0], ptr), ops.segment_reduce(src[:, 0, :1], ptr)[:, 0])
    wide = ops.segment_broadcast(src[:3], ptr, 8)
    assert torch.equal(wide, ops.segment_broadcast(src[:3].flatten(1), ptr, 8).view(8, 2, 3))
    assert ops.segment_reduce(torch.empty(0, 0, 3), torch.tensor([0, 0])).shape == (1, 0, 3)


def test_other_dtypes_get_the_reference(make_graph):
    graph = make_graph(1, sizes=[5, 4])
    x = randn(9, 3, seed=0, dtype=torch.float16)
    bias = randn(3, 3, seed=1, dtype=torch.float16)
    assert torch.equal(ops.segment_reduce(x, graph.ptr), reference.segment_reduce(x, graph.ptr))
    expected = reference.message_sum(x, x, bias, graph)
    assert torch.equal(ops.message_sum(x, x, bias, graph), expected)


# ---- derivatives ----------------------------------------------------------------------------------------------------


CASES = [
    *(f"{op} {r}" for r in REDUCES for op in ("segment_reduce", "segment_broadcast")),
    *(f"message_sum {a}" for a in ACTIVATIONS),
]


@pytest.fixture(params=CASES)
def case(request, make_graph):
    """An op and its float64 leaves, on graphs with empty and isolated parts."""
    graph, ptr = make_graph(11, sizes=[4, 0, 5, 1]), torch.tensor([1, 3, 3, 8])
    op, kind = request.param.split()
    if op == "segment_reduce":
        return lambda s: ops.segment_reduce(s, ptr, kind), (leaf(10, 3, seed=1),)
    if op == "segment_broadcast":
        return lambda s: ops.segment_broadcast(s, ptr, 10, kind), (leaf(3, 3, seed=2),)
    leaves = leaf(10, 2, seed=8), leaf(10, 2, seed=9), leaf(4, 2, seed=10)
    return lambda t, s, b: ops.message_sum(t, s, b, graph, kind), leaves


class TestEveryCase(Promises):
    pass


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_tangent_of_message_sum_has_two_derivatives(make_graph, activation):
    graph = make_graph(5, sizes=[3, 0, 2])
    leaves = leaf(5, 2, seed=1), leaf(5, 2, seed=2), leaf(3, 2, seed=3)
    tangents_have_two_derivatives(lambda *parts: ops.message_sum(*parts, graph, activation), leaves)


def test_the_fourth_derivative_is_refused_by_name(make_graph):
    graph, bias = make_graph(5, sizes=[3, 2]), torch.zeros(3, 2, dtype=torch.float64)
    third_derivatives_are_the_last(lambda x: ops.message_sum(x, x, bias, graph), leaf(5, 2, seed=1))


def test_gradients_exist_only_where_asked(make_graph):
    graph = make_graph(7, sizes=[4, 3])
    target, source, bias = leaf(7, 3, seed=1), randn(7, 3, seed=2), leaf(3, 3, seed=3)
    ops.message_sum(target, source, bias, graph).sum().backward()
    twin_target, twin_bias = target.detach().requires_grad_(), bias.detach().requires_grad_()
    reference.message_sum(twin_target, source, twin_bias, graph).sum().backward()
    assert source.grad is None
    torch.testing.assert_close(target.grad, twin_target.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bias.grad, twin_bias.grad, rtol=1e-12, atol=1e-12)


@given(SEEDS, FEATURES, any_float, any_integer, st.sampled_from(ACTIVATIONS))
def test_message_sum_gradients_of_any_shape_and_dtype(
    make_graph, assert_near, seed, features, dtype, index, activation
):
    graph = make_graph(seed, index=index)
    n, e = graph.num_nodes, graph.num_edges
    parts = [randn(rows, features, seed=seed + k, dtype=dtype) for k, rows in enumerate((n, n, 3))]
    gradients_are_near(
        lambda found, exact: assert_near(found, exact, 10.0 * (1 + e)),
        lambda *parts: ops.message_sum(*parts, graph, activation),
        lambda *parts: reference.message_sum(*parts, graph, activation),
        parts,
        randn(n, features, seed=seed + 3, dtype=dtype),
    )


def test_segment_reduce_agrees_with_torch_scatter_where_that_is_right():
    torch_scatter = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
    src, ptr = leaf(12, 5, seed=1), torch.tensor([0, 4, 4, 12])
    ours, theirs = ops.segment_reduce(src, ptr), torch_scatter.segment_csr(src, ptr, reduce="sum")
    torch.testing.assert_close(ours, theirs)
    grad = randn(3, 5, seed=2)
    torch.testing.assert_close(torch.autograd.grad(ours, src, grad), torch.autograd.grad(theirs, src, grad))


# ---- torch.func, torch.library, torch.compile -----------------------------------------------------------------------


@pytest.mark.parametrize("batched", [(0, None, None), (None, 1, None), (None, None, 0), (2, 0, None)])
def test_vmap_of_message_sum_over_some_arguments(make_graph, batched):
    graph = make_graph(3, sizes=[4, 0, 3])
    whole = [randn(7, 3, seed=1), randn(7, 3, seed=2), randn(3, 3, seed=3)]
    given_ = [
        t if d is None else torch.stack([(k + 1) * t for k in range(5)], d) for t, d in zip(whole, batched, strict=True)
    ]
    found = torch.vmap(lambda t, s, b: ops.message_sum(t, s, b, graph), in_dims=batched)(*given_)
    for k in range(5):
        one = [t if d is None else (k + 1) * t for t, d in zip(whole, batched, strict=True)]
        torch.testing.assert_close(found[k], ops.message_sum(*one, graph))


def test_vmap_of_boundaries():
    x = randn(7, 3, seed=1)
    boundaries = torch.tensor([[0, 2, 7], [1, 1, 4]])
    found = torch.vmap(lambda ptr: ops.segment_reduce(x, ptr))(boundaries)
    torch.testing.assert_close(found, torch.stack([ops.segment_reduce(x, ptr) for ptr in boundaries]))


@pytest.mark.parametrize(("sizes", "features"), [([], 3), ([0, 0], 3), ([3, 2], 0), ([], 0)])
def test_vmap_and_gradients_of_nothing(make_graph, sizes, features):
    graph = make_graph(1, sizes=sizes)
    n = graph.num_nodes
    x = torch.zeros(4, n, features, dtype=torch.float64)
    bias = torch.zeros(3, features, dtype=torch.float64)
    functions = {
        "message_sum": (lambda t: ops.message_sum(t, t, bias, graph), n),
        "segment_reduce": (lambda t: ops.segment_reduce(t, graph.ptr), graph.num_graphs),
    }
    for function, rows in functions.values():
        assert torch.vmap(function)(x).shape == (4, rows, features)
        assert torch.func.grad(lambda t, f=function: f(t).sum())(x[0]).shape == (n, features)


def registered(make_graph, index):
    """Each registered op with arguments that reach all of its branches."""
    graph = make_graph(6, sizes=[4, 0, 3], index=index)
    n = graph.num_nodes
    turned = graph.transpose
    kinds = (graph.rowptr, graph.col, graph.edge_attr.to(index))
    kinds += (turned.rowptr, turned.col, turned.edge_attr.to(index))
    x, y = leaf(n, 3, seed=1), leaf(n, 3, seed=2)
    space = torch.ops.graphgen
    yield space.segment_reduce, (x, graph.ptr, "mean")
    yield space.segment_broadcast, (leaf(3, 3, seed=3), graph.ptr, n, "mean")
    bias = leaf(3, 3, seed=5)
    yield space.message_sum_0, (x, y, bias, *kinds, n, 3, 3, "silu", [0, 2])
    yield space.message_sum_1, (x, y, bias, x, None, None, *kinds, n, 3, 3, "tanh", [0, 1, 2, 3])
    yield space.message_sum_1, (x, y, bias, None, y, bias, *kinds, n, 3, 3, "silu", [2, 5, 4])
    yield space.message_sum_2, (x, y, bias, x, y, None, None, y, bias, *kinds, n, 3, 3, "silu", [1, 3, 8, 0])


# message_sum_3 by its first term has no derivative, which opcheck's autograd tests would ask for.
@pytest.mark.parametrize("index", INTEGERS)
def test_opcheck(make_graph, index):
    for op, arguments in registered(make_graph, index):
        torch.library.opcheck(op.default, arguments)


def test_opcheck_of_the_highest_order(make_graph):
    graph = make_graph(6, sizes=[4, 0, 3])
    n, parts = graph.num_nodes, [randn(rows, 3, seed=rows) for rows in (7, 7, 3)]
    kinds = (graph.rowptr, graph.col, graph.edge_attr, None, None, None)
    arguments = (*parts, *parts, *parts, *parts, *kinds, n, 3, 3, "silu", [0, 2, 3, 11])
    torch.library.opcheck(torch.ops.graphgen.message_sum_3.default, arguments)


def test_compiled_by_inductor_between_other_operations(make_graph):
    graph = make_graph(9, sizes=[4, 5])
    bias = leaf(3, 4, seed=1)

    def layer(x):
        hidden = ops.message_sum(2 * x, x.cos(), bias, graph)
        return ops.segment_reduce(ops.neighbor_reduce(hidden.sin(), graph, reduce="mean") + x, graph.ptr)

    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True)
    x = leaf(9, 4, seed=2)
    grad = randn(2, 4, seed=3)
    torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x), (x, bias), grad), torch.autograd.grad(layer(x), (x, bias), grad)
    )


# ---- the same bits --------------------------------------------------------------------------------------------------


def everything(graph, features, dtype, activation="silu"):
    """Values and gradients of every op, in one list."""
    n = graph.num_nodes
    x, y = (randn(n, features, seed=k, dtype=dtype).requires_grad_() for k in (1, 2))
    bias = randn(3, features, seed=3, dtype=dtype).requires_grad_()
    grad = randn(n, features, seed=5, dtype=dtype)
    messages = ops.message_sum(x, y, bias, graph, activation)
    segments = ops.segment_reduce(x, graph.ptr)
    spread = ops.segment_broadcast(segments, graph.ptr, n, "mean")
    out = [messages, segments, spread]
    out += torch.autograd.grad(messages, (x, y, bias), grad)
    return [t.detach() for t in out]


@pytest.mark.parametrize("dtype", FLOATS)
def test_twenty_runs_and_any_number_of_threads_give_the_same_bits(make_graph, threads, dtype):
    graph = make_graph(1, sizes=[13] * 150 + [0, 700], edges_per_node=3)
    same_bits_every_time(threads, lambda: everything(graph, 37, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("features", [1, 5, 37, 64])
def test_a_graph_has_the_same_bits_alone_and_in_a_batch(make_graph, dtype, features):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 300, 13, 7])
    x, y = (randn(graph.num_nodes, features, seed=k, dtype=dtype) for k in (1, 2))
    bias = randn(3, features, seed=3, dtype=dtype)

    def results(graph, nodes, edges, graphs):
        own = [x[nodes].requires_grad_(), y[nodes].requires_grad_()]
        for activation in ACTIVATIONS:
            messages = ops.message_sum(own[0], own[1], bias, graph, activation)
            for part in (messages, *torch.autograd.grad(messages.square().sum(), own)):
                yield part, "node"
        for reduce in REDUCES:
            yield ops.segment_reduce(own[0], graph.ptr, reduce), "graph"

    same_bits_alone_and_in_a_batch(graph, results)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ptr", [[0, 3, 2], [0, 6], [-1, 2], [4, 9]])
@pytest.mark.parametrize("index", INTEGERS)
def test_boundaries_outside_the_rows_are_an_index_error(ptr, index):
    ptr = torch.tensor(ptr, dtype=index)
    segments = ptr.numel() - 1
    with pytest.raises(IndexError, match="not a range within 5 rows"):
        ops.segment_reduce(torch.zeros(5, 2), ptr)
    with pytest.raises(IndexError, match="not a range within 5 rows"):
        ops.segment_broadcast(torch.zeros(segments, 2), ptr, 5)


def test_a_bond_type_without_a_row_is_an_index_error(make_graph):
    graph = GraphBatch.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 2, edge_attr=torch.tensor([0, 2]))
    x = torch.zeros(2, 3)
    with pytest.raises(IndexError, match="2 rows for 3 edge types"):
        ops.message_sum(x, x, torch.zeros(2, 3), graph)
    plain = make_graph(1, sizes=[2], types=0)
    with pytest.raises(IndexError, match="0 rows for 1 edge types"):
        ops.message_sum(x, x, torch.zeros(0, 3), plain)


def test_shapes_dtypes_and_names_that_do_not_fit(make_graph):
    graph = make_graph(1, sizes=[3, 2])
    x, bias = torch.zeros(5, 2), torch.zeros(3, 2)
    ptr = graph.ptr
    calls = [
        lambda: ops.segment_reduce(x, ptr, "median"),
        lambda: ops.segment_reduce(x, ptr.float()),
        lambda: ops.segment_reduce(x, ptr[:0]),
        lambda: ops.segment_reduce(torch.tensor(1.0), ptr),
        lambda: ops.segment_broadcast(x, ptr, 5),
        lambda: ops.message_sum(x, x, bias, graph, "gelu"),
        lambda: ops.message_sum(x, x[:, :1], bias, graph),
        lambda: ops.message_sum(x, x, bias[:, :1], graph),
        lambda: ops.message_sum(x, x, bias.double(), graph),
        lambda: ops.message_sum(x, x, bias, replace(graph, edge_attr=torch.zeros(graph.num_edges))),
    ]
    refused(calls, r"segment_|message_sum")
