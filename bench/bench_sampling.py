"""Sampling whole batches with the score models, beside the same samplers in plain torch.

A call is a whole sample of STEPS steps, noise to labels; the plain torch side has the same field of reference ops with
the same weights, torch's own noise and updates. Skeletons have the size of QM9's molecules, with 8 atom types.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from _bench import BONDS, NODES, Case, arguments, molecules, run, sizes
from torch import Tensor

from graphgen import GraphBatch
from graphgen.fields.layers import Linear
from graphgen.models import GraphCNF, GraphDDPM, GraphNCSN, GraphSDE
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops import reference

TYPES = Vocabulary(tuple((element, 0) for element in ("C", "N", "O", "F", "S", "P", "Cl", "Br")))
STEPS, HIDDEN, LAYERS = 20, 64, 3


def plain_logits(
    model: GraphSDE | GraphDDPM | GraphNCSN, graph: GraphBatch
) -> Callable[[float, float, Tensor], Tensor]:
    """The posterior's logits at signal a and noise b, in plain torch."""
    field = model.field

    def linear(layer: Linear, h: Tensor) -> Tensor:
        return reference.linear(h, layer.weight, layer.bias)

    def message(layer, h: Tensor) -> Tensor:
        sums = reference.message_sum(linear(layer.as_target, h), linear(layer.as_source, h), layer.bond, graph)
        return h + reference.activation(linear(layer.own, h) + linear(layer.received, sums))

    context = linear(field.structure, field._bond_counts(graph))
    for layer in field.context:
        context = message(layer, context)

    def logits(a: float, b: float, x: Tensor) -> Tensor:
        size = (a * a + b * b) ** -0.5
        t = x.new_full((1, 1), a * size)
        h = (
            context
            + linear(field.state, x * size)
            + linear(field.time_out, reference.activation(linear(field.time_in, t)))
        )
        for layer in field.layers:
            h = message(layer, h)
        return linear(field.out, h) + x * (model.spread * a / (b * b))

    return logits


def plain_sde(model: GraphSDE, graph: GraphBatch) -> Tensor:
    """Reverse diffusion (Song et al., ICLR 2021, equation 46)."""
    logits, sde = plain_logits(model, graph), model.sde
    x = torch.randn(graph.num_nodes, len(TYPES), device=graph.device) * sde.std(1.0)
    dt = (1 - model.t_min) / STEPS
    for k in range(STEPS):
        t = 1 - k * dt
        a, b = sde.mean(t), sde.std(t)
        mean = torch.softmax(logits(a, b, x), 1) * model.spread + model.shift
        score = (a * mean - x) / (b * b)
        variance = sde.beta(t) * dt
        x = (2 - (1 - variance) ** 0.5) * x + variance * score
        if k < STEPS - 1:
            x = x + variance**0.5 * torch.randn_like(x)
    return logits(sde.mean(model.t_min), sde.std(model.t_min), x).argmax(1)


def plain_ddpm(model: GraphDDPM, graph: GraphBatch) -> Tensor:
    """Ancestral sampling of every (T / STEPS)-th step."""
    logits, chain = plain_logits(model, graph), model._chain(STEPS)
    x = torch.randn(graph.num_nodes, len(TYPES), device=graph.device)
    for now, after in pairwise(chain):
        here, there = model.alpha_bars[now], model.alpha_bars[after]
        found = logits(here**0.5, (1 - here) ** 0.5, x)
        mean = torch.softmax(found, 1) * model.spread + model.shift
        beta = 1 - here / there
        x = (there**0.5 * beta * mean + (1 - beta) ** 0.5 * (1 - there) * x) / (1 - here)
        if after:
            x = x + (beta * (1 - there) / (1 - here)) ** 0.5 * torch.randn_like(x)
    return found.argmax(1)


def plain_ncsn(model: GraphNCSN, graph: GraphBatch) -> Tensor:
    """Annealed Langevin dynamics, STEPS / levels steps a level."""
    logits, levels = plain_logits(model, graph), model.sigmas
    x = torch.randn(graph.num_nodes, len(TYPES), device=graph.device) * levels[0]
    for sigma in levels:
        step = 0.2 * sigma**2
        for _ in range(STEPS // len(levels)):
            mean = torch.softmax(logits(1.0, sigma, x), 1) * model.spread + model.shift
            x = x + step * (mean - x) / sigma**2 + (2 * step) ** 0.5 * torch.randn_like(x)
    return logits(1.0, levels[-1], x).argmax(1)


def cases_at(count: int, device: str) -> list[Case]:
    graph, ids = molecules(count, device), torch.arange(count, device=device)
    shape = {"molecules": count, "atoms": NODES * count, "edges": 2 * BONDS * count, "types": len(TYPES)}
    sde, ddpm, ncsn, cnf = (
        kind(TYPES, hidden=HIDDEN, layers=LAYERS).to(device).eval()
        for kind in (GraphSDE, GraphDDPM, GraphNCSN, GraphCNF)
    )

    def sampled(model, steps: int) -> Callable[[], object]:
        return _without_gradients(lambda: model.sample(graph, ids, 0, steps=steps))

    def plainly(sampler: Callable, model) -> Callable[[], object]:
        return _without_gradients(lambda: sampler(model, graph))

    per_level = STEPS // len(ncsn.sigmas)
    return [
        Case(
            f"graph-sde, reverse diffusion, {STEPS} steps",
            shape,
            {"graphgen": sampled(sde, STEPS), "plain torch": plainly(plain_sde, sde)},
        ),
        Case(
            f"graph-ddpm, ancestral, {STEPS} steps",
            shape,
            {"graphgen": sampled(ddpm, STEPS), "plain torch": plainly(plain_ddpm, ddpm)},
        ),
        Case(
            f"graph-ncsn, Langevin, {STEPS} steps",
            shape,
            {"graphgen": sampled(ncsn, per_level), "plain torch": plainly(plain_ncsn, ncsn)},
        ),
        Case(f"graph-cnf, {STEPS} evaluations", shape, {"graphgen": sampled(cnf, STEPS // 4)}),
    ]


def main() -> None:
    chosen = arguments(__doc__ or "")
    torch.manual_seed(chosen.seed)
    cases = [case for count in sizes(chosen, (128, 1024, 16)) for case in cases_at(count, chosen.device)]
    run("bench_sampling", cases, chosen)


def _without_gradients(call: Callable[[], object]) -> Callable[[], object]:
    def timed() -> object:
        with torch.no_grad():
            return call()

    return timed


if __name__ == "__main__":
    main()
