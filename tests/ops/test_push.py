"""A value and several tangents of it in one sweep, and what differentiates them."""

import gc
import weakref

import pytest
import torch
from draws import FLOATS, INTEGERS, leaf, randn
from promises import Promises, refused, same_bits, same_bits_alone_and_in_a_batch, same_bits_every_time
from torch.autograd import gradcheck, gradgradcheck

from graphgen import ops
from graphgen.fields import NeighbourhoodField
from graphgen.ops import reference
from graphgen.ops.dense import _activations, activation_push
from graphgen.ops.message_passing.messages import _products, message_push
from graphgen.ops.reference.message_passing import message_pull as reference_pull

ACTIVATIONS = ["silu", "tanh", "relu", "softplus"]
SPACE = torch.ops.graphgen


def typed_edges(graph):
    turned = graph.transpose
    kinds = [None if g.edge_attr is None else g.edge_attr.to(g.col.dtype) for g in (graph, turned)]
    return graph.rowptr, graph.col, kinds[0], turned.rowptr, turned.col, kinds[1]


def arguments(graph, features, count, seed=0, dtype=torch.float64):
    """Values, tangents, and gradients of value and tangents."""
    n = graph.num_nodes
    shapes = [(n, features), (n, features), (3, features), (count, n, features), (count, n, features)]
    shapes += [(n, features), (count, n, features)]
    return [randn(*shape, seed=seed + k, dtype=dtype) for k, shape in enumerate(shapes)]


def pull(parts, graph, kind, wanted=(0, 1, 2, 3, 4)):
    n, features = parts[0].shape
    return _products.pull(*parts, *typed_edges(graph), n, features, 3, kind, list(wanted))


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_values(make_graph, kind, dtype, count):
    for seed, (features, index) in enumerate([(0, INTEGERS[0]), (1, INTEGERS[1]), (7, INTEGERS[0]), (67, INTEGERS[1])]):
        graph = make_graph(seed, index=index)
        parts = arguments(graph, features, count, seed, dtype)
        wide = [part.double() for part in parts]
        room = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 6e-2}[dtype]
        value, tangent = message_push(parts[:3], parts[3:5], graph, kind)
        expected = reference.message_passing.message_push(wide[:5], typed_edges(graph), graph.num_nodes, kind)
        assert value.dtype == tangent.dtype == dtype
        torch.testing.assert_close(tangent.double(), expected[0], rtol=room, atol=4 * room)
        torch.testing.assert_close(value.double(), expected[1], rtol=room, atol=4 * room)
        found = pull(parts, graph, kind)
        exact = reference_pull(wide, typed_edges(graph), graph.num_nodes, 3, kind, range(5))
        for ours, theirs in zip(found, exact, strict=True):
            scale = 1 + theirs.abs().max() if theirs.numel() else 1
            torch.testing.assert_close(ours.double(), theirs, rtol=room, atol=float(4 * room * scale))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_tangents_together_have_the_bits_they_have_alone(make_graph, kind, dtype):
    graph = make_graph(3, sizes=[4, 0, 9])
    target, source, bias, *along = arguments(graph, 21, 11, dtype=dtype)[:5]
    value, tangent = message_push((target, source, bias), along, graph, kind)
    same_bits(value, ops.message_sum(target, source, bias, graph, kind))
    spread, moved = activation_push(target, along[0], kind)
    same_bits(spread, ops.activation(target, kind))
    for k in range(11):
        alone = SPACE.message_sum_1(
            target, source, bias, along[0][k], along[1][k], None, *typed_edges(graph), 13, 21, 3, kind, [0]
        )
        assert torch.equal(tangent[k], alone[0])
        assert torch.equal(moved[k], SPACE.activation_1(target, along[0][k], kind, [0])[0])


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_same_bits_every_time_and_in_any_batch(make_graph, threads, count):
    graph = make_graph(5, sizes=[150, 0, 300, 7])
    parts = arguments(graph, 19, count, dtype=torch.float32)

    def everything():
        yield from message_push(parts[:3], parts[3:5], graph, "silu")
        yield from pull(parts, graph, "silu")

    same_bits_every_time(threads, everything, runs=6)

    def results(graph, nodes, edges, graphs):
        mine = [part if part.shape[0] == 3 and part.dim() == 2 else part[..., nodes, :] for part in parts]
        value, tangent = message_push(mine[:3], mine[3:5], graph, "silu")
        yield value, "node"
        yield tangent.movedim(0, 1), "node"
        to_target, to_source, _, *to_along = pull(mine, graph, "silu")
        yield to_target, "node"
        yield to_source, "node"
        for part in to_along:
            yield part.movedim(0, 1), "node"

    same_bits_alone_and_in_a_batch(graph, results)


class TestMessages(Promises):
    @pytest.fixture(params=["silu", "tanh"])
    def case(self, make_graph, request):
        graph = make_graph(7, sizes=[3, 0, 2])
        leaves = tuple(leaf(*part.shape, seed=k) for k, part in enumerate(arguments(graph, 2, 2)[:5]))

        def function(target, source, bias, *along):
            value, tangent = message_push((target, source, bias), along, graph, request.param)
            return torch.cat([value, *tangent])

        return function, leaves


class TestActivations(Promises):
    @pytest.fixture(params=["silu", "softplus"])
    def case(self, request):
        def function(x, along):
            value, tangent = activation_push(x, along, request.param)
            return torch.cat([value.unsqueeze(0), tangent])

        return function, (leaf(3, 2, seed=1), leaf(2, 3, 2, seed=2))


class TestNodeUpdate(Promises):
    @pytest.fixture(params=["silu", "tanh"])
    def case(self, request):
        function = lambda h, own, received: ops.node_update(h, own, received, request.param)  # noqa: E731
        return function, tuple(leaf(4, 3, seed=k) for k in range(3))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_node_update_values(kind, dtype):
    for shape in [(0, 3), (5, 0), (7, 9), (40, 67)]:
        parts = [randn(*shape, seed=k, dtype=dtype) for k in range(3)]
        exact = reference.node_update(*(part.double() for part in parts), kind)
        room = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 3e-2}[dtype]
        torch.testing.assert_close(ops.node_update(*parts, kind).double(), exact, rtol=room, atol=room)
    refused(
        [
            lambda: ops.node_update(*parts, "gelu"),
            lambda: ops.node_update(parts[0], parts[1][:3], parts[2]),
            lambda: ops.node_update(parts[0], parts[1], parts[2].to(torch.int64)),
        ],
        "node_update",
    )


def test_registered_ops(make_graph):
    graph = make_graph(7, sizes=[3, 2])
    edges = typed_edges(graph)
    parts = [part.requires_grad_() for part in arguments(graph, 2, 2)]
    torch.library.opcheck(SPACE.message_push.default, (*parts[:5], *edges, 5, 2, 3, "silu"))
    torch.library.opcheck(SPACE.message_pull.default, (*parts, *edges, 5, 2, 3, "silu", [0, 1, 2, 3, 4]))
    x, value_grad, along, tangent_grad = (leaf(*shape, 4, 2, seed=k) for k, shape in enumerate([(), (), (3,), (3,)]))
    torch.library.opcheck(SPACE.activation_push.default, (x, along, "silu"))
    torch.library.opcheck(SPACE.activation_pull.default, (x, along, value_grad, tangent_grad, "silu", [0, 1]))
    torch.library.opcheck(SPACE.node_update.default, (x, value_grad, leaf(4, 2, seed=5), "silu"))


def test_pull_has_its_own_derivatives(make_graph):
    graph = make_graph(7, sizes=[3, 2])
    parts = tuple(leaf(*part.shape, seed=k) for k, part in enumerate(arguments(graph, 2, 2)))

    def function(*parts):
        return pull(parts, graph, "silu")

    assert gradcheck(function, parts, check_forward_ad=True)
    x = (leaf(3, 2, seed=1), leaf(2, 3, 2, seed=2), leaf(3, 2, seed=3), leaf(2, 3, 2, seed=4))
    assert gradcheck(lambda *t: _activations.pull(*t, "silu", [0, 1]), x, check_forward_ad=True)


# ---- a field differentiated as one function -------------------------------------------------------------------------


def bound_field(graph, seed=0, rounds=2):
    torch.manual_seed(seed)
    model = NeighbourhoodField(3, 3, hidden=5, layers=rounds, context_layers=1).double()
    t = torch.linspace(0, 1, graph.num_graphs, dtype=torch.float64).requires_grad_()
    scale = randn(graph.num_nodes, 1, seed=8).requires_grad_()

    def f(x):
        field = model.bind(graph)
        return ops.softmax(field(t, x) * scale) * 2.0 + x * 0.5 + scale

    return f, [*model.parameters(), t, scale]


def gradients(f, graph, x, leaves, parts=("value", "trace"), **how):
    value, trace, _ = ops.divergence(f, x, graph, **how)
    loss = sum({"value": value.sin().sum(), "trace": trace.cos().sum()}[part] for part in parts)
    return torch.autograd.grad(loss, leaves, allow_unused=True)


@pytest.mark.parametrize("parts", [("value",), ("trace",), ("value", "trace")])
@pytest.mark.parametrize("how", [{"probes": 1}, {"probes": 3}, {"method": "xtrace", "probes": 4}])
@pytest.mark.parametrize("state", [False, True])
def test_gradients_are_those_of_any_field(make_graph, parts, how, state):
    graph = make_graph(11, sizes=[5, 0, 7])
    f, leaves = bound_field(graph)
    x = randn(12, 3, seed=1).requires_grad_(state)
    leaves = [*leaves, x] if state else leaves
    for ours, theirs in zip(
        gradients(f, graph, x, leaves, parts, reach=2, **how), gradients(f, graph, x, leaves, parts, **how), strict=True
    ):
        assert (ours is None) == (theirs is None) or float((theirs if ours is None else ours).abs().max()) == 0
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_second_derivatives_and_a_second_walk(make_graph):
    graph = make_graph(11, sizes=[3, 2])
    f, leaves = bound_field(graph, rounds=1)
    x = leaf(5, 3, seed=1)

    def both(x, *_):
        return ops.divergence(f, x, graph, probes=2, reach=1)[:2]

    assert gradcheck(both, (x, *leaves[-3:]), check_batched_grad=True)
    assert gradgradcheck(both, (x, *leaves[-3:]))
    _, trace, _ = ops.divergence(f, x, graph, reach=1)
    first = torch.autograd.grad(trace.sum(), leaves, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(trace.sum(), leaves, allow_unused=True)
    for a, b in zip(first, again, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_a_weight_changed_before_its_gradient_is_noticed(make_graph):
    graph = make_graph(11, sizes=[3, 2])
    f, leaves = bound_field(graph)
    trace = ops.divergence(f, leaf(5, 3, seed=1), graph, reach=2)[1]
    with torch.no_grad():
        leaves[-3].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        trace.sum().backward()


def test_arrays_of_a_way_are_freed_with_it(make_graph):
    graph = make_graph(11, sizes=[3, 2])
    f, _ = bound_field(graph)
    gc.collect()
    gc.disable()
    try:
        kept = []

        def watched(x):
            kept.append(weakref.ref(x))
            return f(x)

        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                value, trace, _ = ops.divergence(watched, leaf(5, 3, seed=1), graph, reach=2)
                if grad:
                    (trace.sum() + value.sum()).backward()
            del value, trace
            assert kept[-1]() is None
    finally:
        gc.enable()


def test_a_field_without_steps_is_its_own_value(make_graph):
    graph = make_graph(11, sizes=[3, 2])
    x = leaf(5, 3, seed=1)
    value, trace, _ = ops.divergence(lambda z: z, x, graph, reach=0)
    assert torch.equal(value, x) and trace.tolist() == [9.0, 6.0]
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert torch.equal(grad, torch.ones_like(x))
