"""Both variational autoencoders, a training step and a batch of samples, beside the same models in plain torch.

python bench/bench_vae.py [--threads 1] [--json out.json]

"plain torch" are the same networks of the same widths on padded batches, ordered pairs and dense adjacency, as such
models are usually written; both sides compare molecules in an order that is there before the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from _bench import Case, arguments, molecules, run, sizes
from torch import Tensor, nn

from graphgen.models import MPGVAE, GraphVAE
from graphgen.models.matching import missed
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import Vocabulary

TYPES = Vocabulary(tuple((element, 0) for element in ("C", "N", "O", "F", "S", "P", "Cl", "Br")))
LATENT, HIDDEN, PAIR, ENCODER, LAYERS, ROUNDS, HEADS, KINDS, MOST = 32, 64, 32, 64, 3, 3, 4, 4, 9


class PlainMessages(nn.Module):
    """Messages and attention along the bonds of dense [B, n, n] adjacency, into a recurrent unit."""

    def __init__(self) -> None:
        super().__init__()
        self.target, self.source = nn.Linear(ENCODER, ENCODER), nn.Linear(ENCODER, ENCODER, bias=False)
        self.bond, self.bias = nn.Embedding(KINDS, ENCODER), nn.Embedding(KINDS, HEADS)
        self.query_key_value = nn.Linear(ENCODER, 3 * ENCODER)
        self.cell = nn.GRUCell(ENCODER, ENCODER)

    def forward(self, h: Tensor, kinds: Tensor) -> Tensor:
        many, n, _ = h.shape
        bonded = kinds > 0
        terms = self.target(h)[:, :, None] + self.source(h)[:, None] + self.bond(kinds)
        messages = (nn.functional.silu(terms) * bonded.unsqueeze(3)).sum(2)
        q, k, v = self.query_key_value(h).view(many, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(2, 3) / math.sqrt(ENCODER // HEADS) + self.bias(kinds).permute(0, 3, 1, 2)
        seen = logits.masked_fill(~bonded.unsqueeze(1), torch.finfo(logits.dtype).min).softmax(3) * bonded.unsqueeze(1)
        picked = (seen @ v).transpose(1, 2).reshape(many, n, ENCODER)
        return self.cell((messages + picked).flatten(0, 1), h.flatten(0, 1)).view_as(h)


class PlainMessageLayer(nn.Module):
    """GraphVAE's round: messages alone, added to the state."""

    def __init__(self) -> None:
        super().__init__()
        self.target, self.source = nn.Linear(ENCODER, ENCODER), nn.Linear(ENCODER, ENCODER, bias=False)
        self.own, self.received = nn.Linear(ENCODER, ENCODER), nn.Linear(ENCODER, ENCODER, bias=False)
        self.bond = nn.Embedding(KINDS, ENCODER)

    def forward(self, h: Tensor, kinds: Tensor) -> Tensor:
        terms = self.target(h)[:, :, None] + self.source(h)[:, None] + self.bond(kinds)
        messages = (nn.functional.silu(terms) * (kinds > 0).unsqueeze(3)).sum(2)
        return h + nn.functional.silu(self.own(h) + self.received(messages))


class PlainRound(nn.Module):
    """The decoder's round on [B, n, n] ordered pairs."""

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

    def forward(self, h: Tensor, e: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
        many, n, _ = h.shape
        q, k, v = self.query_key_value(self.norm(h)).view(many, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        z = self.pair_norm(e)
        bias, gate = self.bias_gate(z).permute(0, 3, 1, 2).chunk(2, 1)
        logits = q @ k.transpose(2, 3) / math.sqrt(HIDDEN // HEADS) + bias
        seen = logits.masked_fill(~apart, torch.finfo(logits.dtype).min).softmax(3) * gate.sigmoid()
        h = h + self.attended((seen @ v).transpose(1, 2).reshape(many, n, HIDDEN))
        h = h + self.own(h)
        left, right = self.ends(h).chunk(2, 2)
        met = left[:, :, None] + right[:, None] + self.pair_own(z) + self.logits(logits.permute(0, 2, 3, 1))
        return h, e + self.pair_out(nn.functional.silu(met))


class PlainVAE(nn.Module):
    """MPGVAE, or GraphVAE where it does not pass messages in its decoder."""

    def __init__(self, with_messages: bool) -> None:
        super().__init__()
        self.with_messages, types = with_messages, len(TYPES)
        self.atom, self.place = nn.Embedding(types, ENCODER), nn.Parameter(torch.randn(MOST, ENCODER))
        self.rounds = nn.ModuleList((PlainMessages if with_messages else PlainMessageLayer)() for _ in range(ROUNDS))
        if with_messages:
            self.lstm, self.out = nn.LSTMCell(2 * ENCODER, ENCODER), nn.Linear(2 * ENCODER, 2 * LATENT)
            self.expand, self.unroll = nn.Linear(LATENT, HIDDEN), nn.GRU(HIDDEN, HIDDEN, batch_first=True)
            self.places = nn.Parameter(torch.randn(MOST, HIDDEN))
            self.first, self.second = nn.Linear(HIDDEN, PAIR), nn.Linear(HIDDEN, PAIR)
            self.layers = nn.ModuleList(PlainRound() for _ in range(LAYERS))
            self.atom_out = nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, types))
            self.pair_out = nn.Sequential(nn.LayerNorm(PAIR), nn.Linear(PAIR, PAIR), nn.SiLU(), nn.Linear(PAIR, KINDS))
        else:
            self.gate, self.out = nn.Linear(ENCODER, 2 * ENCODER), nn.Linear(ENCODER, 2 * LATENT)
            widths = [LATENT, 2 * ENCODER, 4 * ENCODER, 8 * ENCODER]
            parts = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
            self.plain = nn.Sequential(*parts, nn.Linear(widths[-1], MOST * types + MOST * MOST * KINDS))

    def posterior(self, atoms: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        h = self.atom(atoms) + self.place
        for layer in self.rounds:
            h = layer(h, kinds)
        if not self.with_messages:
            gate, value = self.gate(h).chunk(2, 2)
            return self.out((gate.sigmoid() * value.tanh()).sum(1).tanh()).chunk(2, 1)  # type: ignore[return-value]
        answer = state = memory = h.new_zeros(len(h), ENCODER)
        for _ in range(3):
            state, memory = self.lstm(torch.cat((state, answer), 1), (state, memory))
            answer = ((h @ state.unsqueeze(2)).softmax(1) * h).sum(1)
        return self.out(torch.cat((state, answer), 1)).chunk(2, 1)  # type: ignore[return-value]

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if not self.with_messages:
            both = self.plain(z)
            atoms, pairs = both.split([MOST * len(TYPES), MOST * MOST * KINDS], 1)
            pairs = pairs.view(len(z), MOST, MOST, KINDS)
            return atoms.view(len(z), MOST, -1), pairs + pairs.transpose(1, 2)
        known = self.expand(z)
        h, _ = self.unroll(known.unsqueeze(1) + self.places, known.tanh().unsqueeze(0))
        e = self.first(h)[:, :, None] + self.second(h)[:, None]
        e = e + e.transpose(1, 2)
        apart = ~torch.eye(MOST, dtype=torch.bool, device=z.device)
        for layer in self.layers:
            h, e = layer(h, e, apart)
        pairs = self.pair_out(e)
        return self.atom_out(h), pairs + pairs.transpose(1, 2)

    def loss(self, atoms: Tensor, kinds: Tensor) -> Tensor:
        mean, log_std = self.posterior(atoms, kinds)
        of_atoms, of_pairs = self.decode(mean + log_std.exp() * torch.randn_like(mean))
        i, j = torch.triu_indices(MOST, MOST, 1)
        rec = nn.functional.cross_entropy(of_atoms.flatten(0, 1), atoms.flatten(), reduction="sum")
        rec = rec + nn.functional.cross_entropy(
            of_pairs[:, i, j].flatten(0, 1), kinds[:, i, j].flatten(), reduction="sum"
        )
        return (rec + 0.5 * (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum()) / atoms.numel()


def cases_at(count: int, device: str) -> list[Case]:
    graph = molecules(count, device)
    batch = MoleculeBatch(graph, torch.randint(len(TYPES), (graph.num_nodes,), device=device), torch.arange(count))
    batch = batch._replace(ids=batch.ids.to(device))
    whole = CompleteGraphs.of(batch)
    atoms, kinds = batch.atoms.view(count, MOST), torch.zeros(count, MOST, MOST, dtype=torch.int64, device=device)
    i, j = torch.triu_indices(MOST, MOST, 1)
    kinds[:, i, j] = whole.pairs.view(count, -1)
    kinds = kinds + kinds.transpose(1, 2)
    shape = {"molecules": count, "atoms": graph.num_nodes, "pairs": len(whole.pairs)}
    in_order = torch.arange(graph.num_nodes, device=device)
    cases = []
    for kind in (MPGVAE, GraphVAE):
        widths = {"encoder_hidden": ENCODER} if kind is MPGVAE else {}
        ours, plain = kind(TYPES, **widths).to(device), PlainVAE(kind is MPGVAE).to(device)

        def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
            return lambda: torch.autograd.grad(loss(), list(model.parameters()), allow_unused=True)

        def loss_of_ours(ours: MPGVAE | GraphVAE = ours) -> Tensor:
            mean, log_std = ours.posterior(batch, in_order)
            z = mean + log_std.exp() * torch.randn_like(mean)
            divergence = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum()
            return (missed(whole, ours.decode(z, whole.ptr)).sum() + 0.5 * divergence) / len(batch.atoms)

        def sampled(plain: PlainVAE = plain) -> object:
            laws = plain.decode(torch.randn(count, LATENT, device=device))
            return [law.argmax(-1) for law in laws]

        def ours_sampled(ours: MPGVAE | GraphVAE = ours) -> object:
            return ours.sample(batch.ids, 0, whole.ptr.diff())

        cases += [
            Case(
                f"{ours.name}: training step",
                shape,
                {
                    "graphgen": step(ours, loss_of_ours),
                    "plain torch, padded": step(plain, lambda plain=plain: plain.loss(atoms, kinds)),
                },
            ),
            Case(
                f"{ours.name}: samples",
                shape,
                {"graphgen": torch.no_grad()(ours_sampled), "plain torch, padded": torch.no_grad()(sampled)},
            ),
        ]
    return cases


def main() -> None:
    chosen = arguments(__doc__ or "")
    cases = [case for count in sizes(chosen, (256, 1024)) for case in cases_at(count, chosen.device)]
    run("bench_vae", cases, chosen)


if __name__ == "__main__":
    main()
