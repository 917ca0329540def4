"""segment_reduce, neighbor_reduce and message_sum against plain torch, sparse matrices and torch_scatter.

python bench/bench_message_passing.py [--device cuda] [--threads 1] [--json out.json]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _bench import SIZES, Case, arguments, molecules, run, torch_scatter
from torch import Tensor

from graphgen import GraphBatch, ops
from graphgen.ops import reference

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


def _without(cases: list[Case], why: str) -> list[Case]:
    for case in cases:
        if why:
            case.skipped = {**case.skipped, "torch_scatter": why}
    return cases


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    cases = []
    for part in (segments, neighbors, messages):
        for count, features in SIZES:
            graph = molecules(count, chosen.device)
            shape = {"N": graph.num_nodes, "E": graph.num_edges, "F": features}
            cases += part(graph, features, shape)
    run("message_passing", cases, chosen)


if __name__ == "__main__":
    main()
