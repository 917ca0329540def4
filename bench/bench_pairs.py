"""The ops on all pairs of atoms and the field they make, against plain torch on padded batches.

python bench/bench_pairs.py [--device cuda] [--threads 1] [--json out.json]

"plain torch" is the reference on the same packed pairs; "plain torch, ordered pairs" the field that keeps a state for
both orders of a pair, padded as transformers of graphs usually are, of the same widths; "torch.compile, ordered pairs"
the same compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from _bench import Case, arguments, run, sizes
from torch import Tensor, nn

from graphgen import ops
from graphgen.fields import PairField
from graphgen.ops import Pairs, reference

TYPES, KINDS, HIDDEN, PAIR, HEADS, LAYERS, WALK = 8, 4, 96, 48, 4, 5, 6


class OrderedLayer(nn.Module):
    """A round of attention and pair update on [B, n, n] ordered pairs, in plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.pair_norm = nn.LayerNorm(HIDDEN), nn.LayerNorm(PAIR)
        self.query_key_value, self.bias_gate = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(PAIR, 2 * HEADS)
        self.attended = nn.Linear(HIDDEN, HIDDEN)
        self.own = nn.Sequential(
            nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 2 * HIDDEN), nn.SiLU(), nn.Linear(2 * HIDDEN, HIDDEN)
        )
        self.ends = nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 2 * PAIR))
        self.pair_own, self.pair_out = nn.Linear(PAIR, PAIR, bias=False), nn.Linear(PAIR, PAIR)
        self.logits = nn.Linear(HEADS, PAIR, bias=False)

    def forward(self, h: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        count, most, _ = h.shape
        parts = self.query_key_value(self.norm(h)).view(count, most, 3, HEADS, HIDDEN // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        z = self.pair_norm(e)
        bias, gate = self.bias_gate(z).permute(0, 3, 1, 2).chunk(2, 1)
        logits = query @ key.transpose(2, 3) / math.sqrt(HIDDEN // HEADS) + bias
        seen = logits.masked_fill(~real[:, None, None], torch.finfo(logits.dtype).min)
        received = (seen.softmax(3) * gate.sigmoid()) @ value
        h = h + self.attended(received.transpose(1, 2).reshape(count, most, HIDDEN))
        h = h + self.own(h)
        left, right = self.ends(h).chunk(2, 2)
        met = left[:, :, None] + right[:, None] + self.pair_own(z) + self.logits(logits.permute(0, 2, 3, 1))
        return h, e + self.pair_out(nn.functional.silu(met))


class OrderedField(nn.Module):
    """A graph transformer of the same widths on padded batches of ordered pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.atom, self.pair = nn.Embedding(TYPES, HIDDEN), nn.Embedding(KINDS, PAIR)
        self.atom_in, self.pair_in = nn.Linear(1 + WALK, HIDDEN), nn.Linear(1 + WALK, PAIR)
        self.time = nn.Sequential(nn.Linear(2, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN + PAIR))
        self.layers = nn.ModuleList(OrderedLayer() for _ in range(LAYERS))
        self.atom_out = nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, TYPES))
        self.pair_out = nn.Sequential(nn.LayerNorm(PAIR), nn.Linear(PAIR, PAIR), nn.SiLU(), nn.Linear(PAIR, KINDS))

    def forward(self, t: Tensor, atoms: Tensor, kinds: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        orders = kinds.to(t.dtype)
        bonded = (orders > 0).to(t.dtype)
        step = bonded / bonded.sum(2, keepdim=True).clamp(min=1)
        walks = [torch.eye(kinds.shape[1], device=t.device).expand_as(step)]
        for _ in range(WALK):
            walks.append(walks[-1] @ step)
        every = torch.stack(walks, 3)
        returns = every[..., 1:].diagonal(dim1=1, dim2=2).transpose(1, 2)
        node_clock, pair_clock = self.time(torch.stack((t, real.sum(1).log()), 1)).split([HIDDEN, PAIR], 1)
        own = self.atom_in(torch.cat((orders.sum(2, keepdim=True) / 4, returns), 2))
        h = self.atom(atoms) + own + node_clock[:, None]
        e = self.pair(kinds) + self.pair_in(every) + pair_clock[:, None, None]
        for layer in self.layers:
            h, e = layer(h, e, real)
        one_way = self.pair_out(e)
        return self.atom_out(h), one_way + one_way.transpose(1, 2)


def cases_at(name: str, molecules: list[int], device: str) -> list[Case]:
    pairs = Pairs(torch.tensor([0, *molecules], device=device).cumsum(0))
    atoms, count = len(pairs.of_atom), len(pairs.first)
    shape = {"molecules": len(molecules), "atoms": atoms, "pairs": count}
    draw = lambda *sizes: torch.randn(*sizes, device=device)  # noqa: E731
    inner = 2 * HIDDEN
    return [
        *both_ways(
            f"norm_linear, {name}", shape, "norm_linear",
            [draw(atoms, HIDDEN), draw(HIDDEN, 3 * HIDDEN), draw(3 * HIDDEN)], (), 2 * atoms * HIDDEN * 3 * HIDDEN,
        ),
        *both_ways(
            f"norm_mlp, {name}", shape, "norm_mlp",
            [draw(atoms, HIDDEN), draw(HIDDEN, inner), draw(inner), draw(inner, HIDDEN), draw(HIDDEN)], (),
            4 * atoms * HIDDEN * inner,
        ),
        *both_ways(
            f"pair_attention, {name}", shape, "pair_attention",
            [draw(atoms, 3 * HIDDEN), draw(count, 2 * HEADS)], (pairs, HEADS), 8 * count * HIDDEN,
        ),
        *both_ways(
            f"pair_update, {name}", shape, "pair_update",
            [draw(count, PAIR), draw(atoms, PAIR), draw(count, HEADS), draw(PAIR, PAIR), draw(HEADS, PAIR),
             draw(PAIR, PAIR), draw(PAIR)], (pairs,), 2 * count * PAIR * (2 * PAIR + HEADS),
        ),
        *field_cases(f"field, {name}", shape, molecules, pairs, device),
    ]  # fmt: skip


def both_ways(
    name: str, shape: dict[str, int], op: str, tensors: list[Tensor], rest: tuple[object, ...], flops: int
) -> list[Case]:
    ways = {"graphgen": getattr(ops, op), "plain torch": getattr(reference, op)}
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]

    def learn(function: Callable[..., Tensor | tuple[Tensor, ...]]) -> Callable[[], object]:
        def step() -> object:
            found = function(*leaves, *rest)
            found = found if isinstance(found, tuple) else (found,)
            return torch.autograd.grad(found, leaves, [torch.ones_like(part) for part in found])

        return step

    return [
        Case(f"{op} forward, {name.partition(', ')[2]}", shape,
             {way: (lambda function=function: function(*tensors, *rest)) for way, function in ways.items()},
             flops=flops),
        Case(f"{op} forward+backward, {name.partition(', ')[2]}", shape,
             {way: learn(function) for way, function in ways.items()}, flops=3 * flops),
    ]  # fmt: skip


def field_cases(name: str, shape: dict[str, int], molecules: list[int], pairs: Pairs, device: str) -> list[Case]:
    ours = PairField(TYPES, TYPES, KINDS, HIDDEN, PAIR, LAYERS, HEADS, WALK).to(device)
    theirs = OrderedField().to(device)
    compiled = torch.compile(theirs)
    t = torch.rand(len(molecules), device=device)
    labels = torch.randint(TYPES, (len(pairs.of_atom),), device=device)
    kinds = torch.randint(KINDS, (len(pairs.first),), device=device)
    bound = ours.bind(pairs.ptr)
    (many, most), place, upper, lower, _ = pairs.padded
    padded_labels = labels.new_zeros(many * most).index_copy_(0, place, labels).view(many, most)
    padded_kinds = kinds.new_zeros(many * most * most).index_copy_(0, torch.cat((upper, lower)), kinds.repeat(2))
    padded_kinds = padded_kinds.view(many, most, most)
    real = torch.arange(most, device=device) < torch.tensor(molecules, device=device).unsqueeze(1)
    ways = {
        "graphgen": lambda: bound(t, labels, kinds),
        "plain torch, ordered pairs": lambda: theirs(t, padded_labels, padded_kinds, real),
        "torch.compile, ordered pairs": lambda: compiled(t, padded_labels, padded_kinds, real),
    }

    def learn(way: Callable[[], tuple[Tensor, Tensor]], field: nn.Module) -> Callable[[], object]:
        return lambda: torch.autograd.grad(sum(part.square().mean() for part in way()), list(field.parameters()))

    fields = dict(zip(ways, (ours, theirs, theirs), strict=True))
    return [
        Case(f"{name}: forward", shape, {key: torch.no_grad()(way) for key, way in ways.items()}),
        Case(f"{name}: training step", shape, {key: learn(way, fields[key]) for key, way in ways.items()}),
    ]


def main() -> None:
    chosen = arguments(__doc__ or "")
    generator = torch.Generator().manual_seed(chosen.seed)
    qm9 = torch.tensor([9] * 7 + [8]).repeat(64).tolist()
    zinc = (torch.randn(128, generator=generator) * 4.5 + 23).round().clamp(6, 38).int().tolist()
    batches = {"512 molecules as QM9's": qm9, "128 molecules as ZINC250k's": zinc}
    cases = [case for name in sizes(chosen, list(batches)) for case in cases_at(name, batches[name], chosen.device)]
    run("bench_pairs", cases, chosen)


if __name__ == "__main__":
    main()
