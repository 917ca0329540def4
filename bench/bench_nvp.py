"""GraphNVP's training step and sampling, beside the same function of the same weights in plain torch.

The plain side is written as the paper's own code is: the full matrix of pairs, all n n 4 numbers of it flattened and
masked for every coupling, a new copy of it for every coupling, and bonds as dense matrices. Molecules have the size of
QM9's, with 8 atom types; before anything is timed both sides are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from _bench import NODES, Case, arguments, molecules, run, sizes
from torch import Tensor
from torch.nn import functional

from graphgen.models import GraphNVP
from graphgen.models.graph_nvp import Points
from graphgen.molecules.complete import PAIR_TYPES
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.padded import PaddedMolecules
from graphgen.molecules.vocabulary import Vocabulary

TYPES = Vocabulary(tuple((element, 0) for element in ("C", "N", "O", "F", "S", "P", "Cl", "Br")))
KINDS = len(PAIR_TYPES)


class Plain:
    """The flows of a model in plain torch; its weights are the model's, spread out over the full matrix."""

    def __init__(self, model: GraphNVP) -> None:
        self.model, self.most = model, model.settings["atoms"]
        i, j = torch.triu_indices(self.most, self.most, 1, device=model.log_variances.device)
        self.upper = (i, j)
        numbers = (i * self.most + j).unsqueeze(1) * KINDS + torch.arange(KINDS, device=i.device)
        self.pairs = [
            self._spread(flow.network, numbers.flatten()[flow.rest], self.most**2 * KINDS) for flow in model.pair_flow
        ]
        self.atoms = []
        for flow in model.atom_flow:
            places = torch.arange(self.most * len(TYPES), device=i.device).view(self.most, -1)
            others = torch.cat((places[: flow.atom], places[flow.atom + 1 :])).flatten()
            first = (KINDS - 1) * len(TYPES)
            into = torch.cat((torch.arange(first, device=i.device), first + others))
            self.atoms.append(self._spread(flow.network, into, first + self.most * len(TYPES)))

    def _spread(self, network, into: Tensor, width: int) -> list[Tensor]:
        """The layers with the first one's rows where the numbers lie in the full tensor; what is given comes last."""
        weight = network.first.weight.detach()
        first = weight.new_zeros(width + len(weight) - len(into), weight.shape[1])
        first[into], first[width:] = weight[: len(into)], weight[len(into) :]
        layers = [first, network.first.bias, network.second.weight, network.second.bias]
        layers += [network.last.weight, network.last.bias]
        return [tensor.detach().clone().requires_grad_() for tensor in layers]

    @staticmethod
    def _law(layers: list[Tensor], known: Tensor) -> tuple[Tensor, Tensor]:
        w1, b1, w2, b2, w3, b3 = layers
        out = functional.silu(functional.silu(known @ w1 + b1) @ w2 + b2) @ w3 + b3
        shift, scale = out.chunk(2, 1)
        return shift, torch.tanh(scale) / 2

    def _of_row(self, number: int, a: Tensor, given: Tensor) -> tuple[int, Tensor, Tensor]:
        atom = self.model.pair_flow[number].atom
        mask = torch.ones_like(a)
        mask[:, atom], mask[:, :, atom] = 0, 0
        shift, half = self._law(self.pairs[number], torch.cat(((a * mask).flatten(1), given), 1))
        shape = (len(a), self.most - 1, KINDS)
        return atom, shift.view(shape), half.view(shape)

    def _put_row(self, a: Tensor, atom: int, row: Tensor) -> Tensor:
        full = torch.cat((row[:, :atom], row.new_zeros(len(row), 1, KINDS), row[:, atom:]), 1)
        a = a.clone()
        a[:, atom], a[:, :, atom] = full, full
        return a

    def _of_atom(self, number: int, x: Tensor, bonded: Tensor, around: Tensor) -> tuple[int, Tensor, Tensor]:
        atom = self.model.atom_flow[number].atom
        mask = torch.ones_like(x)
        mask[:, atom] = 0
        x = x * mask
        sums = torch.stack([bonded[..., kind] @ x for kind in range(KINDS - 1)], 2)[:, atom]
        known = torch.cat((sums.flatten(1), x.flatten(1), around[:, atom]), 1)
        return atom, *self._law(self.atoms[number], known)

    def _context(self, bonds: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        bonded = functional.one_hot(bonds, KINDS)[..., 1:]
        degrees = functional.one_hot(bonded.sum(2).clamp(max=4), 5).flatten(2).float()
        h = degrees @ model.structure.weight + model.structure.bias
        for layer in model.context:
            target = h @ layer.as_target.weight + layer.as_target.bias
            source = h @ layer.as_source.weight
            between = target.unsqueeze(2) + source.unsqueeze(1) + layer.bond[(bonds - 1).clamp(min=0)]
            sums = (functional.silu(between) * (bonds > 0).unsqueeze(3)).sum(2)
            h = h + functional.silu(h @ layer.own.weight + layer.own.bias + sums @ layer.received.weight)
        return bonded.float(), torch.cat((h, given.unsqueeze(1).expand(-1, self.most, -1)), 2)

    def loss(self, molecules: PaddedMolecules) -> Tensor:
        """With torch's own noise on the labels."""
        a = functional.one_hot(molecules.bonds, KINDS).float()
        noise = 0.9 * torch.rand_like(a)
        apart = ~torch.eye(self.most, dtype=torch.bool, device=a.device)
        a = (a + (noise + noise.transpose(1, 2)) / 2) * apart.unsqueeze(2)
        x = functional.one_hot(molecules.atoms, len(TYPES)).float()
        return self.negative_log_density(a, x + 0.9 * torch.rand_like(x), molecules)

    def negative_log_density(self, a: Tensor, x: Tensor, molecules: PaddedMolecules) -> Tensor:
        given = functional.one_hot(molecules.sizes - 1, self.most).float()
        bonded, around = self._context(molecules.bonds, given)
        log_dets = [a.new_zeros(len(a)), a.new_zeros(len(a))]
        for number in range(len(self.pairs)):
            atom, shift, half = self._of_row(number, a, given)
            row = torch.cat((a[:, atom, :atom], a[:, atom, atom + 1 :]), 1)
            scale = (1 + half) / (1 - half)
            log_dets[0] = log_dets[0] + scale.log().sum((1, 2))
            a = self._put_row(a, atom, row * scale + shift)
        for number in range(len(self.atoms)):
            atom, shift, half = self._of_atom(number, x, bonded, around)
            scale = (1 + half) / (1 - half)
            log_dets[1] = log_dets[1] + scale.log().sum(1)
            moved = (x[:, atom] * scale + shift).unsqueeze(1)
            x = torch.cat((x[:, :atom], moved, x[:, atom + 1 :]), 1)
        total = a.new_zeros(())
        for z, log_det, log_variance in zip((a[:, *self.upper], x), log_dets, self.model.log_variances, strict=True):
            energy = (z * z * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)).flatten(1).sum(1) / 2
            total = total + (energy - log_det).mean() / z[0].numel()
        return total

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        device = self.model.log_variances.device
        deviations = 0.75 * torch.exp(self.model.log_variances / 2)
        upper = torch.randn(count, len(self.upper[0]), KINDS, device=device) * deviations[0]
        x = torch.randn(count, self.most, len(TYPES), device=device) * deviations[1]
        return self.of_noise(upper, x)

    def of_noise(self, upper: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        count, (i, j) = len(x), self.upper
        a = x.new_zeros(count, self.most, self.most, KINDS)
        a[:, i, j], a[:, j, i] = upper, upper
        given = functional.one_hot(torch.full((count,), self.most - 1, device=x.device), self.most).float()
        for number in reversed(range(len(self.pairs))):
            atom, shift, half = self._of_row(number, a, given)
            row = torch.cat((a[:, atom, :atom], a[:, atom, atom + 1 :]), 1)
            a = self._put_row(a, atom, (row - shift) * ((1 - half) / (1 + half)))
        bonds = a.argmax(3) * ~torch.eye(self.most, dtype=torch.bool, device=x.device)
        bonded, around = self._context(bonds, given)
        for number in reversed(range(len(self.atoms))):
            atom, shift, half = self._of_atom(number, x, bonded, around)
            x = x.clone()
            x[:, atom] = (x[:, atom] - shift) * ((1 - half) / (1 + half))
        return bonds, x.argmax(2)


def cases_at(count: int, device: str) -> list[Case]:
    graph, ids = molecules(count, device), torch.arange(count, device=device)
    batch = MoleculeBatch(graph, torch.randint(0, len(TYPES), (NODES * count,), device=device), ids)
    model = GraphNVP(TYPES, atoms=NODES).to(device)
    with torch.no_grad():
        for flow in [*model.pair_flow, *model.atom_flow]:
            flow.network.last.weight.normal_(0, 0.02)
    whole = torch.full((count,), NODES, device=device)
    plain, padded = Plain(model), model.padded(batch)
    _compare(model, plain, padded, ids, whole)
    shape = {"molecules": count, "atoms": NODES * count}

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model.loss(batch, 0).backward()

    def plain_step() -> None:
        for leaf in (leaf for layers in [*plain.pairs, *plain.atoms] for leaf in layers):
            leaf.grad = None
        plain.loss(padded).backward()

    return [
        Case("training step", shape, {"graphgen": step, "plain torch": plain_step}),
        Case(
            "sampling",
            shape,
            {
                "graphgen": lambda: model.sample(ids, 0, whole),
                "plain torch": _without_gradients(lambda: plain.sample(count)),
            },
        ),
    ]


@torch.no_grad()
def _compare(model: GraphNVP, plain: Plain, padded: PaddedMolecules, ids: Tensor, whole: Tensor) -> None:
    points = model.dequantise(padded, ids, 0)
    i, j = plain.upper
    a = points.pairs.new_zeros(len(ids), NODES, NODES, KINDS)
    a[:, i, j] = a[:, j, i] = points.pairs.view(len(ids), -1, KINDS)
    theirs = plain.negative_log_density(a, points.atoms, padded)
    found = model.log_densities(points, padded)
    ours = sum(-float(value.mean()) / at[0].numel() for value, at in zip(found, points, strict=True))
    assert abs(ours - float(theirs)) < 1e-4, "the two sides are not the same function"
    noise = model.prior(ids, 0)
    bonds, atoms = plain.of_noise(noise.pairs.view(len(ids), -1, KINDS), noise.atoms)
    _, made = model.to_points(Points(*noise), whole)
    same = (bonds == made.bonds).flatten(1).all(1) & (atoms == made.atoms).all(1)
    assert float(same.float().mean()) > 0.99, "the two sides do not make the same molecules"


def main() -> None:
    chosen = arguments(__doc__ or "")
    torch.manual_seed(chosen.seed)
    cases = [case for count in sizes(chosen, (256, 1024, 16)) for case in cases_at(count, chosen.device)]
    run("bench_nvp", cases, chosen)


def _without_gradients(call: Callable[[], object]) -> Callable[[], object]:
    def timed() -> object:
        with torch.no_grad():
            return call()

    return timed


if __name__ == "__main__":
    main()
