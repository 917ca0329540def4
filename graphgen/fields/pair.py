"""The field of whole molecules: a graph transformer on the atoms of a complete graph and their pairs.

Attention with a bias and a gate from the pair, and pairs that take in both their ends and the attention logits: the
edge-augmented transformer of Hussain et al. 2022. The walks of the current graph are input features as in GRIT (Ma et
al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphgen.molecules.complete import PAIR_TYPES, pair_ends

PairFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(t [B], atoms [N], pairs [P]) -> ([N, c], [P, 4])``."""


class PairField(nn.Module):
    """What the current atoms and bonds of molecules say of every atom's and every pair's label, with time.

    It sees, beside labels and time, the number of atoms, the sum of bond orders at each atom, and the probabilities
    that a random walk on the current bonds comes back to its atom, or leads to another, in 1 to ``walk`` steps. Atoms
    renamed, its results are renamed likewise. Molecules of a batch are padded to the largest, which influences no
    result; but matrix products of another shape may round differently, so a molecule's last bits depend on its batch.

    Args:
        atom_types: c, labels that an atom may have in the end.
        atom_states, pair_states: labels that the current graph may have, at least the c and the 4 of the end and in
            the same places; a pair state beyond those counts as no bond.
        hidden, pair_hidden: widths of atoms and pairs.
        layers: rounds.
        heads: of the attention; they divide ``hidden``.
        walk: the longest random walk.

    Raises:
        ValueError: heads that do not divide the width.
    """

    orders: Tensor

    def __init__(
        self,
        atom_types: int,
        atom_states: int,
        pair_states: int = len(PAIR_TYPES),
        hidden: int = 96,
        pair_hidden: int = 48,
        layers: int = 5,
        heads: int = 4,
        walk: int = 6,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"PairField: {heads} heads do not divide the width {hidden}")
        self.walk = walk
        self.widths = [hidden, pair_hidden]
        self.atom = nn.Embedding(atom_states, hidden)
        self.pair = nn.Embedding(pair_states, pair_hidden)
        self.atom_in = nn.Linear(1 + walk, hidden)
        self.pair_in = nn.Linear(1 + walk, pair_hidden, bias=False)
        self.time = nn.Sequential(nn.Linear(2, hidden), nn.SiLU(), nn.Linear(hidden, hidden + pair_hidden, bias=False))
        self.layers = nn.ModuleList(PairLayer(hidden, pair_hidden, heads) for _ in range(layers))
        self.atom_out = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, atom_types))
        self.pair_out = nn.Sequential(
            nn.LayerNorm(pair_hidden),
            nn.Linear(pair_hidden, pair_hidden),
            nn.SiLU(),
            nn.Linear(pair_hidden, len(PAIR_TYPES)),
        )
        orders = torch.zeros(pair_states)
        orders[: len(PAIR_TYPES)] = torch.arange(len(PAIR_TYPES))
        self.register_buffer("orders", orders, persistent=False)

    def bind(self, ptr: Tensor) -> PairFunction:
        """The field on molecules of these sizes.

        Args:
            ptr: [B + 1], molecule g owns the atoms ``ptr[g]:ptr[g + 1]``; pairs are laid out as
                :class:`~graphgen.molecules.complete.CompleteGraphs` has them.

        Returns:
            ``(t [B], atoms [N] int64, pairs [P] int64) -> logits [N, c] and [P, 4]`` in the dtype of the weights; both
            orders of a pair get the same bits. Differentiable in the weights.
        """
        ptr = ptr.long()
        sizes = ptr.diff()
        count, most = len(sizes), int(sizes.max()) if len(sizes) else 0
        owner = torch.repeat_interleave(torch.arange(count, device=ptr.device), sizes)
        place = torch.arange(len(owner), device=ptr.device) - ptr[owner] + owner * most
        first, second = pair_ends(ptr)
        pair_place = place[first] * most + (place[second] - owner[first] * most)
        real = torch.arange(most, device=ptr.device) < sizes.unsqueeze(1)

        def padded(labels: Tensor, places: Tensor, *shape: int) -> Tensor:
            return labels.new_zeros(math.prod(shape)).index_copy_(0, places, labels).view(shape)

        def field(t: Tensor, atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
            labels, kinds = padded(atoms, place, count, most), padded(pairs, pair_place, count, most, most)
            valence, walks = self._features(kinds)
            clock = self.time(torch.stack((t, sizes.to(t.dtype).clamp(min=1).log()), 1))
            node_clock, pair_clock = clock.split(self.widths, 1)
            returns = walks[..., 1:].diagonal(dim1=1, dim2=2).transpose(1, 2)
            h = self.atom(labels) + self.atom_in(torch.cat((valence, returns), 2)) + node_clock[:, None]
            e = self.pair(kinds) + self.pair_in(walks) + pair_clock[:, None, None]
            for layer in self.layers:
                h, e = layer(h, e, real)
            one_way = self.pair_out(e)
            both_ways = one_way + one_way.transpose(1, 2)
            return self.atom_out(h).flatten(0, 1)[place], both_ways.flatten(0, 2)[pair_place]

        return field

    def forward(self, t: Tensor, atoms: Tensor, pairs: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        return self.bind(ptr)(t, atoms, pairs)

    def _features(self, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n, 1] sum of bond orders over 4, and [B, n, n, 1 + walk] chance of 0 to ``walk`` steps from i to j."""
        orders = self.orders[kinds]
        adjacent = (orders > 0).to(orders.dtype)
        step = adjacent / adjacent.sum(2, keepdim=True).clamp(min=1)
        walks = [torch.eye(kinds.shape[1], dtype=orders.dtype, device=orders.device).expand_as(step)]
        for _ in range(self.walk):
            walks.append(walks[-1] @ step)
        return orders.sum(2, keepdim=True) / 4, torch.stack(walks, 3)


class PairLayer(nn.Module):
    """One round: atoms attend to atoms through their pairs, then pairs take in both ends and the attention logits."""

    def __init__(self, hidden: int, pair_hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.pair_norm = nn.LayerNorm(hidden), nn.LayerNorm(pair_hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.bias_gate = nn.Linear(pair_hidden, 2 * heads)
        self.attended = nn.Linear(hidden, hidden)
        self.own = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden)
        )
        self.ends = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * pair_hidden))
        self.pair_own = nn.Linear(pair_hidden, pair_hidden, bias=False)
        self.logits = nn.Linear(heads, pair_hidden, bias=False)
        self.pair_out = nn.Linear(pair_hidden, pair_hidden)

    def forward(self, h: Tensor, e: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            h: [B, n, hidden]; e: [B, n, n, pair_hidden].
            real: [B, n] bool, which atoms are no padding; what those that are get means nothing.
        """
        count, most, hidden = h.shape
        heads = self.query_key_value(self.norm(h)).view(count, most, 3, self.heads, hidden // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        z = self.pair_norm(e)
        bias, gate = self.bias_gate(z).permute(0, 3, 1, 2).chunk(2, 1)
        logits = query @ key.transpose(2, 3) / math.sqrt(hidden // self.heads) + bias
        # Not minus infinity: a molecule without atoms has nothing but padding to look at.
        seen = logits.masked_fill(~real[:, None, None], torch.finfo(logits.dtype).min)
        received = (seen.softmax(3) * gate.sigmoid()) @ value
        h = h + self.attended(received.transpose(1, 2).reshape(count, most, hidden))
        h = h + self.own(h)
        left, right = self.ends(h).chunk(2, 2)
        met = left[:, :, None] + right[:, None] + self.pair_own(z) + self.logits(logits.permute(0, 2, 3, 1))
        return h, e + self.pair_out(nn.functional.silu(met))
