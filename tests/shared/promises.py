"""What every op promises, each stated once: its derivatives, torch.func, torch.compile, and the same bits."""

from __future__ import annotations

import pytest
import torch
from draws import alone, leaf, randn
from torch.autograd import gradcheck, gradgradcheck


class Promises:
    """Tests of every `case`, a fixture that gives a function and its float64 leaves. Subclass it beside the fixture."""

    # How far jacfwd may be from jacrev.
    jacobian_tolerance = 1e-12

    def batch(self, inputs):
        """Four of each input, to vmap over."""
        return tuple(randn(4, *t.shape, seed=40 + k) for k, t in enumerate(inputs))

    def test_first_derivatives(self, case):
        assert gradcheck(*case, check_forward_ad=True, check_batched_grad=True)

    def test_second_derivatives(self, case):
        assert gradgradcheck(*case, check_fwd_over_rev=True)

    def test_jvp_and_vjp_are_each_others_transposes(self, case):
        function, leaves = case
        inputs = tuple(t.detach() for t in leaves)
        tangents = tuple(randn(*t.shape, seed=20 + k) for k, t in enumerate(inputs))
        value, pushed = torch.func.jvp(function, inputs, tangents)
        same, pull = torch.func.vjp(function, *inputs)
        assert torch.equal(value, same)
        cotangent = randn(*value.shape, seed=30)
        pulled = pull(cotangent)
        # <w, Jv> = <J'w, v>
        right = sum((a * b).sum() for a, b in zip(pulled, tangents, strict=True))
        torch.testing.assert_close((cotangent * pushed).sum(), right, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pulled, torch.autograd.grad(function(*leaves), leaves, cotangent))
        every, tolerance = tuple(range(len(inputs))), self.jacobian_tolerance
        for forward, backward in zip(
            torch.func.jacfwd(function, every)(*inputs), torch.func.jacrev(function, every)(*inputs), strict=True
        ):
            torch.testing.assert_close(forward, backward, rtol=tolerance, atol=tolerance)

    def test_vmap_is_a_loop(self, case):
        function, leaves = case
        inputs = tuple(t.detach() for t in leaves)
        many = self.batch(inputs)
        looped = loop(function, many)
        torch.testing.assert_close(torch.vmap(function)(*many), looped)
        last = tuple(t.movedim(0, -1) for t in many)
        torch.testing.assert_close(torch.vmap(function, in_dims=-1, out_dims=-1)(*last).movedim(-1, 0), looped)
        for only in range(len(inputs)):
            dims = tuple(0 if k == only else None for k in range(len(inputs)))
            some = tuple(many[k] if k == only else t for k, t in enumerate(inputs))
            wide = tuple(many[k] if k == only else t.expand(4, *t.shape) for k, t in enumerate(inputs))
            torch.testing.assert_close(torch.vmap(function, in_dims=dims)(*some), loop(function, wide))

    def test_vmap_of_derivatives_is_a_loop(self, case):
        function, leaves = case
        inputs = tuple(t.detach() for t in leaves)
        directions = tuple(randn(4, *t.shape, seed=40 + k) for k, t in enumerate(inputs))

        def push(*along):
            return torch.func.jvp(function, inputs, along)[1]

        torch.testing.assert_close(torch.vmap(push)(*directions), loop(push, directions))
        cotangent, many = randn(*function(*inputs).shape, seed=30), self.batch(inputs)
        for which in range(len(inputs)):

            def pull(*at, which=which):
                return torch.func.vjp(function, *at)[1](cotangent)[which]

            torch.testing.assert_close(torch.vmap(pull)(*many), loop(pull, many))

    def test_compiled_whole_with_its_gradient(self, case):
        compiles_whole(*case)


def loop(function, many):
    return torch.stack([function(*one) for one in zip(*many, strict=True)])


def compiles_whole(function, leaves, backend="aot_eager"):
    """In one graph, with the gradient of the plain call and, where no code is generated, its very value."""
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    value = function(*leaves)
    grad = randn(*value.shape, seed=50)
    exactly = {"rtol": 0, "atol": 0} if backend == "aot_eager" else {}
    torch.testing.assert_close(compiled(*leaves), value, **exactly)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*leaves), leaves, grad), torch.autograd.grad(value, leaves, grad)
    )


def tangents_have_two_derivatives(function, leaves):
    count = len(leaves)
    tangents = tuple(leaf(*t.shape, seed=20 + k) for k, t in enumerate(leaves))

    def tangent(*parts):
        return torch.func.jvp(function, parts[:count], parts[count:])[1]

    assert gradcheck(tangent, (*leaves, *tangents))
    assert gradgradcheck(tangent, (*leaves, *tangents))


def gradients_are_near(near, function, twin, parts, grad):
    """Those of `function` in the dtype of its arguments, by `near`, to those of its twin in float64."""
    leaves = [t.detach().requires_grad_() for t in parts]
    wide = [t.detach().double().requires_grad_() for t in parts]
    found = torch.autograd.grad(function(*leaves), leaves, grad)
    exact = torch.autograd.grad(twin(*wide), wide, grad.double())
    for part, ours, theirs in zip(parts, found, exact, strict=True):
        assert ours.dtype == part.dtype
        near(ours, theirs)


def third_derivatives_are_the_last(function, x):
    value = function(x)
    for _ in range(3):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="fourth derivative.*reference"):
        torch.autograd.grad(value.sum(), x)


def same_bits(a, b):
    """Those of a zero's sign and of a NaN among them."""
    assert a.shape == b.shape and a.dtype == b.dtype
    a, b = (t.detach().flatten() for t in (a, b))
    assert torch.equal(a.view(torch.uint8), b.view(torch.uint8)), f"{int((a != b).sum())} of {a.numel()} differ"


def same_bits_every_time(threads, results, runs=20):
    """`results()` are tensors, which no run and no number of threads may change."""
    with threads(1):
        first = list(results())
    for run in range(runs):
        with threads(1 + run % 3):
            for a, b in zip(first, results(), strict=True):
                same_bits(a, b)


def same_bits_alone_and_in_a_batch(graph, results):
    """`results(graph, nodes, edges, graphs)`, of what stands there in the batch, are pairs of a tensor and what its
    rows are of: "node", "edge" or "graph".
    """
    everything = slice(None)
    together = list(results(graph, everything, everything, everything))
    for g in range(graph.num_graphs):
        one, nodes, edges = alone(graph, g)
        place = {"node": nodes, "edge": edges, "graph": slice(g, g + 1)}
        for (mine, kind), (batched, _) in zip(results(one, *place.values()), together, strict=True):
            same_bits(mine, batched[place[kind]])


def refused(calls, match, error=ValueError):
    for call in calls:
        with pytest.raises(error, match=match):
            call()


def dense_traces(f, x, graph):
    """[B] from the whole Jacobian, by reverse mode."""
    if not x.numel():
        return x.new_zeros(graph.num_graphs)
    diagonal = torch.func.jacrev(f)(x).reshape(x.numel(), x.numel()).diagonal().reshape(x.shape).sum(1)
    return torch.stack([diagonal[a:b].sum() for a, b in zip(graph.ptr, graph.ptr[1:], strict=False)])
