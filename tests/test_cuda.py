"""Every op on CUDA: against float64, against the CPU, with poisoned outputs, at sizes around every boundary.

GRAPHGEN_TEST_LARGE=1 adds the arrays whose offsets pass 2^31, which need some 20 GB on the device.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from graphgen import _C, ops
from graphgen.ops import reference

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device", allow_module_level=True)
if not _C.built_with_cuda():
    pytest.skip("this engine was built without CUDA", allow_module_level=True)

DEVICE = "cuda"
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
INDICES = [torch.int32, torch.int64]
ACTIVATIONS = ["silu", "tanh"]
REDUCES = ["sum", "mean"]
# Around packs of 2, 4 and 8, warps and blocks.
FEATURES = [0, 1, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 64, 65, 127, 128, 129, 255, 256, 257]
ROWS = [0, 1, 2, 31, 32, 33, 255, 256, 257, 1000]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 2.0**-7}


def randn(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def poison() -> None:
    """Leave NaN in the memory that the next outputs get, of any size up to some MB."""
    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
        return  # nothing is kept for the next output, and memory checkers see to what is unwritten
    held = [torch.full((1 << power,), torch.nan, device=DEVICE) for power in range(4, 21) for _ in range(3)]
    del held


def check(ours: torch.Tensor, exact: torch.Tensor, scale: torch.Tensor | float = 1.0) -> None:
    assert ours.is_cuda == (DEVICE == "cuda")
    assert ours.shape == exact.shape
    tolerance = TOLERANCE[ours.dtype]
    room = tolerance * exact.abs() + min(tolerance, 2e-5) * torch.as_tensor(scale, device=DEVICE)
    error = (ours.double() - exact).abs()
    assert bool((error <= room).all()), f"off by up to {float(error.nan_to_num(torch.inf).max()):.3g}"


def sizes_of(rows: int) -> list[int]:
    """Graphs that share so many nodes unevenly, empty ones among them."""
    return [0, rows // 3, 0, rows - rows // 3 - rows // 4, rows // 4, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", FEATURES)
def test_message_passing_values(make_graph, dtype, features):
    for k, rows in enumerate(ROWS):
        graph = make_graph(k, sizes=sizes_of(rows), edges_per_node=2.5, index=INDICES[k % 2], device=DEVICE)
        n, e = graph.num_nodes, graph.num_edges
        x, y = randn(n, features, seed=1, dtype=dtype), randn(n, features, seed=2, dtype=dtype)
        bias, weight = randn(4, features, seed=3, dtype=dtype), randn(e, seed=4, dtype=dtype)
        wide = [t.double() for t in (x, y, bias, weight)]
        size = [t.abs() for t in wide]
        for activation in ACTIVATIONS:
            poison()
            out = ops.message_sum(x, y, bias, graph, activation)
            check(out, reference.message_sum(*wide[:3], graph, activation), 4.0 * graph.degree.unsqueeze(1))
        for reduce in REDUCES:
            for ours, theirs, theirs_size in ((weight, wide[3], size[3]), (None, None, None)):
                poison()
                check(
                    ops.neighbor_reduce(x, graph, ours, reduce),
                    reference.neighbor_reduce(wide[0], graph, theirs, reduce),
                    reference.neighbor_reduce(size[0], graph, theirs_size, reduce),
                )
            poison()
            segments = ops.segment_reduce(x, graph.ptr, reduce)
            check(
                segments,
                reference.segment_reduce(wide[0], graph.ptr, reduce),
                reference.segment_reduce(size[0], graph.ptr, reduce),
            )
            poison()
            check(
                ops.segment_broadcast(segments, graph.ptr, n + 3, reduce),
                reference.segment_broadcast(segments.double(), graph.ptr, n + 3, reduce),
            )
        poison()
        check(
            ops.edge_dot(x, y, graph),
            reference.edge_dot(wide[0], wide[1], graph),
            reference.edge_dot(size[0], size[1], graph),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("features", [1, 5, 8, 64, 129])
def test_message_sum_gradients(make_graph, dtype, activation, features):
    for k, rows in enumerate([1, 33, 300, 1000]):
        graph = make_graph(k, sizes=sizes_of(rows), edges_per_node=2.5, index=INDICES[k % 2], device=DEVICE)
        n = graph.num_nodes
        parts = [randn(size, features, seed=j, dtype=dtype).requires_grad_() for j, size in enumerate((n, n, 3))]
        exact = [part.detach().double().requires_grad_() for part in parts]
        grad = randn(n, features, seed=9, dtype=dtype)
        poison()
        found = torch.autograd.grad(ops.message_sum(*parts, graph, activation), parts, grad)
        expected = torch.autograd.grad(reference.message_sum(*exact, graph, activation), exact, grad.double())
        for ours, theirs in zip(found, expected, strict=True):
            check(ours, theirs, 10.0 * (1 + graph.num_edges) ** 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("inner", "outer"), [(0, 5), (1, 1), (5, 37), (16, 16), (64, 64), (67, 5), (129, 130), (3, 300)]
)
def test_dense_values(dtype, inner, outer):
    for rows in ROWS:
        x, weight = randn(rows, inner, seed=1, dtype=dtype), randn(inner, outer, seed=2, dtype=dtype)
        for bias in (randn(outer, seed=3, dtype=dtype), None):
            poison()
            out = ops.linear(x, weight, bias)
            added = 0.0 if bias is None else bias.double()
            size = x.double().abs() @ weight.double().abs() + torch.as_tensor(added).abs()
            check(out, x.double() @ weight.double() + added, size)
        wide = randn(rows, outer, seed=4, dtype=dtype) * 3
        poison()
        check(ops.softmax(wide), reference.softmax(wide.double()))
        for kind in ACTIVATIONS:
            poison()
            check(ops.activation(wide, kind), reference.activation(wide.double(), kind))


def test_views_that_start_between_packs(make_graph):
    """Sixteen-byte loads must not be used where an address does not allow them."""
    graph = make_graph(1, sizes=[40, 30], device=DEVICE)
    for offset in (1, 2, 3):
        buffer = randn(70 * 8 + offset, seed=offset, dtype=torch.float32)
        x = buffer[offset:].view(70, 8)
        whole = x.clone()
        bias = randn(3, 8, seed=5, dtype=torch.float32)
        assert torch.equal(ops.message_sum(x, x, bias, graph), ops.message_sum(whole, whole, bias, graph))
        assert torch.equal(ops.neighbor_reduce(x, graph), ops.neighbor_reduce(whole, graph))
        assert torch.equal(ops.segment_reduce(x, graph.ptr), ops.segment_reduce(whole, graph.ptr))
        assert torch.equal(ops.activation(x), ops.activation(whole))
        assert torch.equal(ops.softmax(x), ops.softmax(whole))
        assert torch.equal(ops.linear(x, bias.t().contiguous()), ops.linear(whole, bias.t().contiguous()))


@pytest.mark.parametrize("distribution", ["uniform", "normal", "rademacher"])
def test_noise_has_the_bits_of_the_cpu(distribution):
    draw = getattr(ops, distribution)
    generator = torch.Generator().manual_seed(1)
    for count in (1, 2, 31, 33, 1000):
        sizes = torch.randint(0, 12, (count,), generator=generator)
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        ids = torch.randint(0, 2**48, (count,), generator=generator)
        for features in (1, 3, 4, 5, 64, 130):
            for graph_ids in (None, ids):
                for dtype in DTYPES:
                    moved = None if graph_ids is None else graph_ids.to(DEVICE)
                    poison()
                    ours = draw(ptr.to(DEVICE), features, 2**63 + 5, 2, 3, moved, dtype)
                    expected = draw(ptr, features, 2**63 + 5, 2, 3, graph_ids, dtype)
                    assert torch.equal(ours.cpu().view(torch.uint8), expected.view(torch.uint8))
    big = torch.tensor([0, 100_003])
    assert torch.equal(draw(big.to(DEVICE), 7, 5).cpu(), draw(big, 7, 5))


def everything(graph, features, dtype):
    n = graph.num_nodes
    x, y = (randn(n, features, seed=k, dtype=dtype).requires_grad_() for k in (1, 2))
    bias = randn(3, features, seed=3, dtype=dtype).requires_grad_()
    weight = randn(graph.num_edges, seed=4, dtype=dtype).requires_grad_()
    matrix = randn(features, 37, seed=5, dtype=dtype)
    grad = randn(n, features, seed=6, dtype=dtype)
    poison()
    messages = ops.message_sum(x, y, bias, graph)
    neighbors = ops.neighbor_reduce(x, graph, weight, "mean")
    out = [messages, neighbors, ops.segment_reduce(x, graph.ptr), ops.edge_dot(x, y, graph), ops.linear(x, matrix)]
    out += [ops.softmax(x), ops.activation(x), ops.normal(graph.ptr, features, 3)]
    out += torch.autograd.grad(messages, (x, y, bias), grad)
    out += torch.autograd.grad(neighbors, (x, weight), grad)
    return [t.detach() for t in out]


@pytest.mark.parametrize("dtype", DTYPES)
def test_twenty_runs_give_the_same_bits(make_graph, dtype):
    graph = make_graph(1, sizes=[13] * 150 + [0, 700], edges_per_node=3, device=DEVICE)
    first = everything(graph, 37, dtype)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(graph, 37, dtype), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", [1, 5, 64])
def test_a_graph_has_the_same_bits_alone_and_in_a_batch(make_graph, dtype, features):
    graph = make_graph(8, sizes=[5, 0, 9, 1, 300, 13, 7], device=DEVICE)
    x, y = (randn(graph.num_nodes, features, seed=k, dtype=dtype) for k in (1, 2))
    bias, matrix = randn(3, features, seed=3, dtype=dtype), randn(features, 19, seed=4, dtype=dtype)

    def results(graph, x, y):
        return (
            ops.message_sum(x, y, bias, graph),
            ops.neighbor_reduce(x, graph, reduce="mean"),
            ops.linear(x, matrix, matrix[0]),
            ops.softmax(x),
            ops.activation(x),
            ops.graph_scale(ops.graph_dot(x, y, graph.ptr), x, graph.ptr),
        )

    together = results(graph, x, y)
    for g in range(graph.num_graphs):
        nodes = slice(int(graph.ptr[g]), int(graph.ptr[g + 1]))
        edges = slice(int(graph.rowptr[nodes.start]), int(graph.rowptr[nodes.stop]))
        one = type(graph).from_edge_index(
            graph.edge_index[:, edges] - nodes.start, nodes.stop - nodes.start, edge_attr=graph.edge_attr[edges]
        )
        for mine, batched in zip(results(one, x[nodes], y[nodes]), together, strict=True):
            assert torch.equal(mine, batched[nodes])


def test_columns_have_the_same_bits_wherever_they_stand(make_graph):
    """vmap moves a graph's columns about as its batch mates change; packs and single lanes must agree."""
    graph = make_graph(3, sizes=[30, 40], device=DEVICE)
    turned = graph.transpose
    edges = (graph.rowptr, graph.col, graph.edge_attr, turned.rowptr, turned.col, turned.edge_attr)
    for dtype in DTYPES:
        narrow = [randn(rows, 1, seed=k, dtype=dtype) for k, rows in enumerate((70, 70, 3) * 4)]
        for kind in ACTIVATIONS:
            for order in range(4):
                op = getattr(torch.ops.graphgen, f"message_sum_{order}")
                parts = narrow[: 3 * (order + 1)]
                wanted = list(range(3 * (order + 1)))
                expected = op(*parts, *edges, 70, 1, 3, kind, wanted)
                for width in (2, 7, 64, 129):
                    spread = [part.expand(-1, width).contiguous() for part in parts]
                    for wide, one in zip(op(*spread, *edges, 70, width, 3, kind, wanted), expected, strict=True):
                        assert torch.equal(wide, one.expand(-1, width))


def test_derivatives(make_graph):
    graph = make_graph(11, sizes=[4, 0, 5, 1], device=DEVICE)
    n, e = graph.num_nodes, graph.num_edges

    def leaf(*shape, seed):
        return randn(*shape, seed=seed).requires_grad_()

    cases = [
        (lambda s: ops.segment_reduce(s, graph.ptr, "mean"), (leaf(n, 3, seed=1),)),
        (lambda x, w: ops.neighbor_reduce(x, graph, w, "mean"), (leaf(n, 3, seed=2), leaf(e, seed=3))),
        (lambda a, b: ops.edge_dot(a, b, graph), (leaf(n, 3, seed=4), leaf(n, 3, seed=5))),
        (lambda t, s, b: ops.message_sum(t, s, b, graph), (leaf(n, 2, seed=6), leaf(n, 2, seed=7), leaf(3, 2, seed=8))),
        (ops.linear, (leaf(4, 3, seed=9), leaf(3, 2, seed=10), leaf(2, seed=11))),
        (ops.softmax, (leaf(3, 4, seed=12),)),
        (ops.activation, (leaf(3, 4, seed=13),)),
        (lambda a, b: ops.graph_dot(a, b, graph.ptr), (leaf(3, n, 2, seed=14), leaf(2, n, 2, seed=15))),
        (lambda s, a: ops.graph_scale(s, a, graph.ptr), (leaf(3, 2, 4, seed=16), leaf(2, n, 2, seed=17))),
    ]
    # index_add inside torch's own derivative of a matrix product is the only thing here that may reorder sums.
    for function, leaves in cases:
        assert gradcheck(function, leaves, check_forward_ad=True, nondet_tol=1e-12)
        assert gradgradcheck(function, leaves, nondet_tol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", FEATURES)
def test_dot_products_per_graph(dtype, features):
    for k, rows in enumerate(ROWS):
        ptr = torch.tensor(sizes_of(rows)).cumsum(0).to(DEVICE, INDICES[k % 2])
        a, b = randn(3, rows, features, seed=1, dtype=dtype), randn(2, rows, features, seed=2, dtype=dtype)
        wide, size = (a.double(), b.double()), (a.double().abs(), b.double().abs())
        poison()
        dots = ops.graph_dot(a, b, ptr)
        check(dots, reference.graph_dot(*wide, ptr), reference.graph_dot(*size, ptr))
        assert torch.equal(dots[1, 0], ops.graph_dot(a[1], b[0], ptr))
        scale = randn(2, 3, ptr.numel() - 1, seed=3, dtype=dtype)
        poison()
        combined = ops.graph_scale(scale, a, ptr)
        expected = reference.graph_scale(scale.double(), wide[0], ptr)
        check(combined, expected, reference.graph_scale(scale.double().abs(), size[0], ptr))


@pytest.mark.parametrize("method", ["exact", "hutchinson", "xtrace"])
def test_divergence_agrees_with_the_cpu(make_graph, method):
    graph = make_graph(5, sizes=[4, 0, 7], device=DEVICE)
    x, weight, bias = randn(11, 3, seed=1), randn(3, 3, seed=2), randn(3, 3, seed=3)

    def run(x, weight, bias, graph):
        def f(x):
            return ops.activation(ops.message_sum(ops.linear(x, weight), x, bias, graph), "tanh")

        return ops.divergence(f, x, graph, method=method, probes=6, seed=4)

    ours = run(x, weight, bias, graph)
    expected = run(x.cpu(), weight.cpu(), bias.cpu(), graph.to("cpu"))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["exact", "hutchinson", "xtrace"])
def test_divergence_of_a_field_with_a_reach_agrees_with_the_cpu(make_graph, method):
    """By push and pull, and on balls; with the gradients."""
    graph = make_graph(5, sizes=[4, 0, 7], device=DEVICE)
    shapes = [(11, 3), (3, 3), (3, 3), (3, 3)]
    inputs = [randn(*shape, seed=k) for k, shape in enumerate(shapes)]

    def run(graph, inputs):
        x, weight, bias, mix = inputs

        def f(z):
            for _ in range(2):
                h = ops.linear(z, weight)
                z = ops.node_update(z, ops.linear(z, mix), ops.message_sum(h, z, bias, graph), "tanh")
            return ops.activation(z, "silu")

        with torch.no_grad():
            plain = ops.divergence(f, x, graph, method=method, probes=6, seed=4, reach=2)
        leaves = [part.clone().requires_grad_() for part in inputs]
        x, weight, bias, mix = leaves
        value, trace, _ = ops.divergence(f, x, graph, method=method, probes=6, seed=4, reach=2)
        return *plain, *torch.autograd.grad(trace.sum() + value.sin().sum(), leaves)

    expected = run(graph.to("cpu"), [part.cpu() for part in inputs])
    for ours, theirs in zip(run(graph, inputs), expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-9, atol=1e-9)


def test_work_goes_to_the_current_stream():
    stream = torch.cuda.Stream()
    x = randn(1 << 20, seed=1, dtype=torch.float32)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):
            torch.cuda._sleep(1_000_000)
        late = x * 2
        out = ops.activation(late)
    stream.synchronize()
    assert torch.equal(out, ops.activation(x * 2))


def test_calls_can_be_captured_and_replayed(make_graph):
    graph = make_graph(5, sizes=[40, 70], device=DEVICE)
    x, bias = randn(110, 64, seed=1, dtype=torch.float32), randn(3, 64, seed=2, dtype=torch.float32)

    def step():
        return ops.linear(ops.message_sum(x, x, bias, graph), x[:64])

    step()
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        out = step()
    x.mul_(0.5)
    recorded.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, step())


@pytest.mark.skipif(os.environ.get("GRAPHGEN_TEST_LARGE") != "1", reason="set GRAPHGEN_TEST_LARGE=1 (needs 20 GB)")
def test_offsets_beyond_thirty_one_bits():
    rows, features = 2**25 + 3, 65  # 2^31 elements and some
    src = torch.empty(rows, features, dtype=torch.bfloat16, device=DEVICE).fill_(1)
    src[-1] = 3
    for index in INDICES:
        ptr = torch.tensor([0, 1, rows - 2, rows], dtype=index, device=DEVICE)
        out = ops.segment_reduce(src, ptr, "mean")
        assert out[:, 0].tolist() == [1, 1, 2]
        back = ops.segment_broadcast(out, ptr, rows)
        assert back[-1].tolist() == [2.0] * features
        assert bool((back[1:-2] == 1).all())
        del back
    assert torch.equal(ops.activation(src, "tanh")[-1], ops.activation(src[-1:], "tanh")[0])
    assert torch.equal(ops.softmax(src)[-1], ops.softmax(src[-1:])[0])
    # The last row belongs to graph 1, whose bits are the same in a batch of its own.
    ptr, alone = torch.tensor([0, rows - 1, rows], device=DEVICE), torch.tensor([0, 1], device=DEVICE)
    noise = ops.uniform(ptr, features, 1)
    assert torch.equal(noise[-1:], ops.uniform(alone, features, 1, graph_ids=alone[1:]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (1, 5), (3, 1), (4, 16), (16, 1), (2, 7), (8, 8), (3, 130)])
def test_neighbors_of_heads_with_extremes_and_attention(make_graph, dtype, heads, width):
    for k, rows in enumerate([0, 1, 33, 1000]):
        graph = make_graph(k, sizes=sizes_of(rows), edges_per_node=2.5, index=INDICES[k % 2], device=DEVICE)
        n, e = graph.num_nodes, graph.num_edges
        x, y, z = (randn(n, heads, width, seed=j, dtype=dtype) for j in (1, 2, 3))
        weight = randn(e, heads, seed=4, dtype=dtype)
        for reduce in ("sum", "mean", "max", "min"):
            leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
            wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
            poison()
            out = ops.neighbor_reduce(leaves[0], graph, leaves[1], reduce)
            exact = reference.neighbor_reduce(wide[0], graph, wide[1], reduce)
            check(out, exact, reference.neighbor_reduce(wide[0].abs(), graph, wide[1].abs()))
            found = torch.autograd.grad(out.sum(), leaves)
            for a, b in zip(found, torch.autograd.grad(exact.sum(), wide), strict=True):
                check(a, b, 10.0 * (1 + width))
            flat, every = x.flatten(1), weight.repeat_interleave(width, 1)
            assert torch.equal(ops.neighbor_reduce(flat, graph, every, reduce), out.flatten(1))
        poison()
        values, arg = ops.neighbor_max(x, graph, weight)
        on_cpu = ops.neighbor_max(x.cpu(), graph.to("cpu"), weight.cpu())
        assert torch.equal(values.cpu(), on_cpu[0]) and torch.equal(arg.cpu(), on_cpu[1])
        check(
            ops.edge_dot(x, y, graph),
            reference.edge_dot(x.double(), y.double(), graph),
            reference.edge_dot(x.double().abs(), y.double().abs(), graph),
        )
        poison()
        attended = ops.neighbor_attention(x, y, z, graph, weight)
        exact = reference.neighbor_attention(x.double(), y.double(), z.double(), graph, weight.double())
        check(attended, exact, 100.0)
