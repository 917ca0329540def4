"""The ops of message passing against their plain torch twins, sparse matrices and torch_scatter.

python bench/bench_message_passing.py [--device cuda] [--threads 1] [--json out.json]
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from _bench import SIZES, Case, arguments, molecules, run, sizes, torch_scatter
from torch import Tensor

from graphgen import GraphBatch, ops
from graphgen.ops import reference

HEADS, BASES = 4, 64

# An activation is an exp, a division and some ten multiply-adds; counted so that the floor is not the bytes' alone.
SILU_FLOPS = 25


def forward_and_backward(function: Callable[..., Tensor], leaves: list[Tensor]) -> dict[str, Callable[[], object]]:
    """The calls to time for one candidate: {"forward": ..., "forward+backward": ...}."""
    quiet = [leaf.detach() for leaf in leaves]
    grad = torch.randn_like(function(*quiet))

    def forward() -> object:
        return function(*quiet)

    def both() -> object:
        return torch.autograd.grad(function(*leaves), leaves, grad)

    return {"forward": forward, "forward+backward": both}


def cases_of(
    name: str, shape: dict[str, int], ways: dict[str, tuple[Callable, list[Tensor]]], moved: dict[str, int], flops: int
) -> list[Case]:
    """One case per pass, each with every way that supports it."""
    calls: dict[str, dict[str, Callable[[], object]]] = {}
    skipped: dict[str, str] = {}
    for way, (function, leaves) in ways.items():
        for part, call in forward_and_backward(function, leaves).items():
            try:
                call()
            except RuntimeError as error:
                skipped[way] = f"{name} {part}: {str(error).splitlines()[0]}"
                continue
            calls.setdefault(part, {})[way] = call
    work = {"forward": flops, "forward+backward": 3 * flops}
    return [
        Case(f"{name} {part}", shape, candidates, moved[part], work[part], skipped=skipped)
        for part, candidates in calls.items()
    ]


def segments(graph: GraphBatch, features: int, shape: dict[str, int]) -> list[Case]:
    x = torch.randn(graph.num_nodes, features, device=graph.device, requires_grad=True)
    ptr, batch, count = graph.ptr, graph.batch, graph.num_graphs
    ones = torch.ones(graph.num_nodes, device=x.device)
    nodes = torch.arange(graph.num_nodes, device=x.device)
    matrix = torch.sparse_csr_tensor(ptr, nodes, ones, size=(count, graph.num_nodes))
    ways = {
        "graphgen": (lambda x: ops.segment_reduce(x, ptr), [x]),
        "reference": (lambda x: reference.segment_reduce(x, ptr), [x]),
        "index_add": (lambda x: x.new_zeros(count, features).index_add(0, batch, x), [x]),
        "torch.segment_reduce": (lambda x: torch.segment_reduce(x, "sum", offsets=ptr, axis=0, unsafe=True), [x]),
        "sparse CSR": (lambda x: matrix @ x, [x]),
    }
    library, why = torch_scatter()
    if library:
        ways["torch_scatter"] = (lambda x: library.segment_csr(x, ptr), [x])
    moved = 4 * features * (graph.num_nodes + count) + 8 * count
    found = cases_of("segment_reduce", shape, ways, {"forward": moved, "forward+backward": 2 * moved}, 0)
    return _without(found, why)


def neighbors(graph: GraphBatch, features: int, shape: dict[str, int]) -> list[Case]:
    n, e = graph.num_nodes, graph.num_edges
    x = torch.randn(n, features, device=graph.device, requires_grad=True)
    weight = torch.rand(e, device=graph.device)
    matrix = torch.sparse_csr_tensor(graph.rowptr, graph.col, weight, size=(n, n))
    target = graph.target
    ways = {
        "graphgen": (lambda x: ops.neighbor_reduce(x, graph, weight), [x]),
        "reference": (lambda x: reference.neighbor_reduce(x, graph, weight), [x]),
        "gather+index_add": (
            lambda x: x.new_zeros(n, features).index_add_(0, target, x[graph.col] * weight.unsqueeze(1)),
            [x],
        ),
        "sparse CSR": (lambda x: matrix @ x, [x]),
    }
    library, why = torch_scatter()
    if library:
        ways["torch_scatter"] = (
            lambda x: library.segment_csr(x[graph.col] * weight.unsqueeze(1), graph.rowptr),
            [x],
        )
    # The rows once, the result once; indices and weights beside. Gathered rows come again from cache.
    moved = 4 * features * 2 * n + e * (8 + 4) + 8 * n
    found = cases_of(
        "neighbor_reduce", shape, ways, {"forward": moved, "forward+backward": 2 * moved}, 2 * e * features
    )
    return _without(found, why)


def messages(graph: GraphBatch, features: int, shape: dict[str, int]) -> list[Case]:
    n, e = graph.num_nodes, graph.num_edges
    leaves = [torch.randn(rows, features, device=graph.device, requires_grad=True) for rows in (n, n, 3)]
    target, kind = graph.target, graph.edge_attr
    library, why = torch_scatter()

    def with_torch_scatter(t: Tensor, s: Tensor, b: Tensor) -> Tensor:
        return library.segment_csr(torch.nn.functional.silu(t[target] + s[graph.col] + b[kind]), graph.rowptr)

    def fused_silu(t: Tensor, s: Tensor, b: Tensor) -> Tensor:
        terms = torch.nn.functional.silu(t[target] + s[graph.col] + b[kind])
        return torch.zeros_like(t).index_add_(0, target, terms)

    functions = {
        "graphgen": lambda t, s, b: ops.message_sum(t, s, b, graph),
        "reference": lambda t, s, b: reference.message_sum(t, s, b, graph),
        "gather+silu+index_add": fused_silu,
    }
    if library:
        functions["torch_scatter"] = with_torch_scatter
    once = 4 * features * 3 * n + e * (8 + 8) + 8 * n
    flops = e * features * (SILU_FLOPS + 3)
    ways = {way: (function, leaves) for way, function in functions.items()}
    found = cases_of("message_sum", shape, ways, {"forward": once, "forward+backward": 3 * once}, flops)

    # The gradient of a gradient, as training on a trace asks for it.
    grad = torch.randn(n, features, device=graph.device, requires_grad=True)
    outer = [torch.randn_like(leaf) for leaf in leaves]

    def twice(function: Callable[..., Tensor]) -> Callable[[], object]:
        def call() -> object:
            inner = torch.autograd.grad(function(*leaves), leaves, grad, create_graph=True)
            return torch.autograd.grad(inner, [*leaves, grad], outer)

        return call

    # torch_scatter's second derivative is wrong (its issue #299), so its time is nobody's alternative.
    double = {way: twice(function) for way, function in functions.items() if way != "torch_scatter"}
    return _without([*found, Case("message_sum double backward", shape, double)], why)


def indexed(graph: GraphBatch, features: int, shape: dict[str, int]) -> list[Case]:
    """Sums and maxima by an index, and rows by one: the edges' rows to their targets, the nodes' rows to the edges."""
    n, e = graph.num_nodes, graph.num_edges
    messages = torch.randn(e, features, device=graph.device, requires_grad=True)
    x = torch.randn(n, features, device=graph.device, requires_grad=True)
    target, source = graph.target, graph.col
    library, why = torch_scatter()
    sums = {
        "graphgen": (lambda m: ops.scatter(m, target, 0, n), [messages]),
        "reference": (lambda m: reference.scatter(m, target, 0, n), [messages]),
        "index_add": (lambda m: m.new_zeros(n, features).index_add(0, target, m), [messages]),
    }
    most = {
        "graphgen": (lambda m: ops.scatter(m, target, 0, n, "max"), [messages]),
        "reference": (lambda m: reference.scatter(m, target, 0, n, "max"), [messages]),
    }
    if library:
        sums["torch_scatter"] = (lambda m: library.scatter(m, target, 0, dim_size=n), [messages])
        most["torch_scatter"] = (lambda m: library.scatter(m, target, 0, dim_size=n, reduce="max"), [messages])
    taken = {
        "graphgen": (lambda x: ops.gather(x, source), [x]),
        "index_select": (lambda x: x.index_select(0, source), [x]),
    }
    moved = 4 * features * (n + e) + 8 * e
    work = {"forward": moved, "forward+backward": 2 * moved}
    found = cases_of("scatter sum", shape, sums, work, 0) + cases_of("scatter max", shape, most, work, 0)
    return _without([*found, *cases_of("gather", shape, taken, work, 0)], why)


def attention(graph: GraphBatch, features: int, shape: dict[str, int]) -> list[Case]:
    """Softmax over the edges that enter a node, alone and within the attention of four heads."""
    n, e = graph.num_nodes, graph.num_edges
    found = []
    library, why = torch_scatter()
    for heads in (1, HEADS):
        logits = torch.randn(e, heads, device=graph.device, requires_grad=True)
        ways = {
            "graphgen": (lambda a: ops.edge_softmax(a, graph), [logits]),
            "reference": (lambda a: reference.edge_softmax(a, graph), [logits]),
        }
        if library:
            ways["torch_scatter"] = (lambda a: library.scatter_softmax(a, graph.target, 0), [logits])
        moved = 4 * heads * 2 * e + 8 * n
        work = {"forward": moved, "forward+backward": 2 * moved}
        sized = {key: value for key, value in shape.items() if key != "F"} | {"H": heads}
        found += _without(cases_of("edge_softmax", sized, ways, work, 10 * e * heads), why)
    if features % HEADS:
        return found
    parts = [torch.randn(n, HEADS, features // HEADS, device=graph.device, requires_grad=True) for _ in range(3)]
    ways = {
        "graphgen": (lambda q, k, v: ops.neighbor_attention(q, k, v, graph), parts),
        "reference": (lambda q, k, v: reference.neighbor_attention(q, k, v, graph), parts),
    }
    moved = 4 * features * 4 * n + 8 * (n + e)
    work = {"forward": moved, "forward+backward": 3 * moved}
    return found + cases_of("neighbor_attention", shape | {"H": HEADS}, ways, work, 4 * e * features)


def radial(graph: GraphBatch, features: int, shape: dict[str, int]) -> list[Case]:
    x = torch.randn(graph.num_nodes, features, device=graph.device, requires_grad=True)
    centers = torch.linspace(0, 10, BASES, device=graph.device).requires_grad_()
    gamma = torch.full((BASES,), 2.0, device=graph.device, requires_grad=True)
    ways = {
        "graphgen": (lambda x, c, g: ops.rbf_neighbor_sum(x, graph, c, g), [x, centers, gamma]),
        "reference": (lambda x, c, g: reference.rbf_neighbor_sum(x, graph, c, g), [x, centers, gamma]),
    }
    moved = 4 * graph.num_nodes * (features + BASES) + 8 * (graph.num_nodes + graph.num_edges)
    flops = graph.num_edges * (3 * features + BASES * 16)
    work = {"forward": moved, "forward+backward": 3 * moved}
    return cases_of("rbf_neighbor_sum", shape | {"K": BASES}, ways, work, flops)


def _without(cases: list[Case], why: str) -> list[Case]:
    for case in cases:
        if why:
            case.skipped = {**case.skipped, "torch_scatter": why}
    return cases


def beyond_the_caches(device: str) -> list[Case]:
    """Half a gigabyte of rows in segments of nine."""
    count, size, features = 233_016, 9, 64
    graph = SimpleNamespace(
        ptr=torch.arange(0, (count + 1) * size, size, device=device),
        batch=torch.arange(count, device=device).repeat_interleave(size),
        num_graphs=count,
        num_nodes=count * size,
        device=torch.device(device),
    )
    shape = {"N": graph.num_nodes, "B": count, "F": features}
    return [case for case in segments(graph, features, shape) if case.name.endswith(" forward")]


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    cases = [] if chosen.quick else beyond_the_caches(chosen.device)
    for part in (segments, neighbors, messages, indexed, attention, radial):
        for count, features in sizes(chosen, SIZES):
            graph = molecules(count, chosen.device)
            shape = {"N": graph.num_nodes, "E": graph.num_edges, "F": features}
            cases += part(graph, features, shape)
    run("message_passing", cases, chosen)


if __name__ == "__main__":
    main()
