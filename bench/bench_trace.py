"""The divergence of a message passing field: ours against the loops that flows use today.

    python bench/bench_trace.py [--device cuda] [--threads 1] [--json out.json]

The peers differentiate the same field written in plain torch: a backward product per probe (FFJORD, ModFlow), one per
state number for the exact trace, and torch.func's vmap of jvp over a basis. The sizes are those of QM9 (d = 45) and of
the largest molecules of ZINC250k (d = 342).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _bench import Case, arguments, large_molecules, molecules, run, sizes
from torch import Tensor

from graphgen import GraphBatch, ops
from graphgen.fields import NeighbourhoodField
from graphgen.fields.layers import Linear
from graphgen.ops import reference

HIDDEN, ROUNDS = 64, 2
PRODUCTS = 12  # of xtrace, and of Hutchinson beside it
PROBES = (4, 8)  # in one sweep, and one by one


def field(graph: GraphBatch, features: int, space) -> Callable[[Tensor], Tensor]:
    """Two rounds of messages, from `space`: graphgen.ops or its plain torch twin."""
    generator = torch.Generator().manual_seed(1)

    def weight(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) / shape[0] ** 0.5).to(graph.device)

    rounds = [
        (weight(inner, HIDDEN), weight(inner, HIDDEN), weight(3, HIDDEN), weight(HIDDEN, HIDDEN))
        for inner in (features, HIDDEN)
    ]
    out = weight(HIDDEN, features)

    def f(x: Tensor) -> Tensor:
        for target, source, bias, mix in rounds:
            sums = space.message_sum(space.linear(x, target), space.linear(x, source), bias, graph)
            x = space.activation(space.linear(sums, mix))
        return space.linear(x, out)

    return f


def flow(graph: GraphBatch, features: int) -> tuple[NeighbourhoodField, Callable, Callable]:
    """The field of the graph CNF, without rounds about the bonds alone; as a function; and its plain torch twin."""
    torch.manual_seed(1)
    model = NeighbourhoodField(features, 3, hidden=HIDDEN, layers=ROUNDS, context_layers=0).to(graph.device)
    t = torch.rand(graph.num_graphs, device=graph.device)

    def twin(x: Tensor) -> Tensor:
        def linear(layer: Linear, h: Tensor) -> Tensor:
            return reference.linear(h, layer.weight, layer.bias)

        time = linear(model.time_out, reference.activation(linear(model.time_in, t.unsqueeze(1))))
        h = linear(model.structure, model._bond_counts(graph)) + linear(model.state, x) + time[graph.batch.long()]
        for layer in model.layers:
            target, source = linear(layer.as_target, h), linear(layer.as_source, h)
            sums = reference.message_sum(target, source, layer.bond, graph)
            h = h + reference.activation(linear(layer.own, h) + linear(layer.received, sums))
        return linear(model.out, h)

    return model, lambda x: model.bind(graph)(t, x), twin


def hutchinson_by_vjp(f: Callable[[Tensor], Tensor], x: Tensor, graph: GraphBatch) -> Tensor:
    v = torch.randint(0, 2, x.shape, device=x.device).to(x.dtype).mul_(2).sub_(1)
    at = x.detach().requires_grad_()
    (pulled,) = torch.autograd.grad(f(at), at, v)
    return x.new_zeros(graph.num_graphs).index_add_(0, graph.batch, (pulled * v).sum(1))


def exact_by_vjp_loop(f: Callable[[Tensor], Tensor], x: Tensor, graph: GraphBatch) -> Tensor:
    """One backward pass per number of a molecule, all molecules at once; they all have the same size here."""
    at = x.detach().requires_grad_()
    value = f(at)
    size = x.numel() // graph.num_graphs
    trace = x.new_zeros(graph.num_graphs)
    for number in range(size):
        v = torch.zeros(graph.num_graphs, size, device=x.device)
        v[:, number] = 1
        (pulled,) = torch.autograd.grad(value, at, v.view_as(x), retain_graph=True)
        trace += pulled.view(graph.num_graphs, size)[:, number]
    return trace


def exact_by_vmap(f: Callable[[Tensor], Tensor], x: Tensor, graph: GraphBatch) -> Tensor:
    size = x.numel() // graph.num_graphs
    basis = torch.eye(size, device=x.device).unsqueeze(1).expand(-1, graph.num_graphs, -1)
    pushed = torch.vmap(lambda v: torch.func.jvp(f, (x,), (v.reshape(x.shape),))[1])(basis)
    return pushed.reshape(size, graph.num_graphs, size).diagonal(dim1=0, dim2=2).sum(1)


def cases_at(make: Callable[[int, str], GraphBatch], count: int, features: int, device: str) -> list[Case]:
    graph = make(count, device)
    numbers = graph.num_nodes // count * features
    x = torch.randn(graph.num_nodes, features, device=device)
    ours, plain = field(graph, features, ops), field(graph, features, reference)
    shape = {"molecules": count, "d": numbers}

    def divergence(method: str, probes: int = 1, reach: int | None = ROUNDS) -> Callable[[], object]:
        return lambda: ops.divergence(ours, x, graph, method=method, probes=probes, reach=reach)

    leaves = x.clone().requires_grad_()

    def trained() -> object:
        value, trace, _ = ops.divergence(ours, leaves, graph, reach=ROUNDS)
        return torch.autograd.grad(trace.sum() + value.square().sum(), leaves)

    def trained_in_torch() -> object:
        v = torch.randint(0, 2, x.shape, device=device).to(x.dtype).mul_(2).sub_(1)
        value = plain(leaves)
        (pulled,) = torch.autograd.grad(value, leaves, v, create_graph=True)
        return torch.autograd.grad((pulled * v).sum() + value.square().sum(), leaves)

    model, ours_flow, plain_flow = flow(graph, features)
    weights = list(model.parameters())

    def step() -> object:
        value, trace, _ = ops.divergence(ours_flow, x, graph, reach=ROUNDS)
        return torch.autograd.grad(trace.sum() + value.square().sum(), weights)

    def step_in_torch() -> object:
        v = torch.randint(0, 2, x.shape, device=device).to(x.dtype).mul_(2).sub_(1)
        at = x.detach().requires_grad_()
        value = plain_flow(at)
        (pulled,) = torch.autograd.grad(value, at, v, create_graph=True)
        return torch.autograd.grad((pulled * v).sum() + value.square().sum(), weights)

    def one_by_one(probes: int) -> Callable[[], object]:
        return lambda: [ops.divergence(ours, x, graph, seed=seed, reach=ROUNDS) for seed in range(probes)]

    with_value = {"graphgen": lambda: ours(x), "reference": lambda: plain(x)}
    cases = [
        Case("field value", shape, with_value),
        Case(
            "value + Hutchinson",
            shape,
            {
                "graphgen": divergence("hutchinson"),
                "graphgen, any field": divergence("hutchinson", reach=None),
                "vjp": lambda: hutchinson_by_vjp(plain, x, graph),
                "field value": lambda: ours(x),
            },
        ),
        Case("value + Hutchinson, and its gradient", shape, {"graphgen": trained, "vjp, double": trained_in_torch}),
        Case(
            "CNF step: value, trace, gradients of the weights", shape, {"graphgen": step, "vjp, double": step_in_torch}
        ),
        *(
            Case(
                f"value + Hutchinson, {probes} probes",
                shape,
                {"graphgen": divergence("hutchinson", probes), "one by one": one_by_one(probes)},
            )
            for probes in PROBES
        ),
    ]
    if count <= 128:
        cases.append(
            Case(
                f"value + xtrace, {PRODUCTS} products",
                shape,
                {
                    "graphgen": divergence("xtrace", PRODUCTS),
                    "Hutchinson": divergence("hutchinson", PRODUCTS),
                    "field value": lambda: ours(x),
                },
            )
        )
    if count * numbers <= 128 * 45:
        cases.append(
            Case(
                "exact",
                shape,
                {
                    "graphgen": divergence("exact"),
                    "graphgen, any field": divergence("exact", reach=None),
                    "vjp loop": lambda: exact_by_vjp_loop(plain, x, graph),
                    "vmap of jvp": lambda: exact_by_vmap(plain, x, graph),
                },
            )
        )
    return cases


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    batches = [(molecules, count, 5) for count in (128, 1, 16, 1024)]
    batches += [(large_molecules, count, 9) for count in (16, 128)]
    run("trace", [case for size in sizes(chosen, batches) for case in cases_at(*size, chosen.device)], chosen)


if __name__ == "__main__":
    main()
