"""The field of whole molecules: a graph transformer on the atoms of a complete graph and their pairs.

Attention with a bias and a gate from the pair, and pairs that take in both their ends and the attention logits: the
edge-augmented transformer of Hussain et al. 2022, with one state for both orders of a pair. The walks of the current
graph are input features as in GRIT (Ma et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.molecules.complete import PAIR_TYPES
from graphgen.ops.pairs import Pairs

PairFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(t [B], atoms [N], pairs [T]) -> ([N, c], [T, 4])``."""


class PairField(nn.Module):
    """What the current atoms and bonds of molecules say of every atom's and every pair's label, with time.

    The current graph may be uncertain: a label may be given by the probabilities of all. The field sees, beside labels
    and time, the number of atoms, the sum of bond orders at each atom, and how many walks of 1 to ``walk`` steps on
    the current bonds come back to their atom, or lead from one to the other, each weighted by 1 / the root of the
    degrees along it (of the walks back that is the probability of a random walk's return). It also sees which atoms
    hang together by pairs that are likelier bonded than not, and what share of the molecule hangs together with each:
    no data are in pieces, and far along a chain no short walk tells. It can be told which labels are decided, so that
    they are not taken for noise. Atoms renamed, its results are renamed likewise. Other molecules of the batch
    influence nothing, not even a bit where the engine has kernels.

    Args:
        atom_types: c, labels that an atom may have in the end.
        atom_states, pair_states: labels that the current graph may have, at least the c and the 4 of the end and in
            the same places; a pair state beyond those counts as no bond.
        hidden, pair_hidden: widths of atoms and pairs.
        layers: rounds.
        heads: of the attention; they divide ``hidden``.
        walk: steps of the longest walk.
        more: further numbers for every atom and every pair, behind the logits of their labels.
        conditions: p, numbers that a molecule may be asked to have.
        decidable: whether it is to be told which labels are decided.

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
        more: int = 0,
        conditions: int = 0,
        decidable: bool = False,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"PairField: {heads} heads do not divide the width {hidden}")
        self.walk = walk
        self.widths = [hidden, pair_hidden]
        self.atom = nn.Embedding(atom_states, hidden)
        self.pair = nn.Embedding(pair_states, pair_hidden)
        self.atom_in = Linear(2 + walk, hidden)
        self.pair_in = Linear(1 + walk, pair_hidden, bias=False)
        self.conditions = conditions
        self.time_in = Linear(2 + 2 * conditions, hidden)
        self.time_out = Linear(hidden, hidden + pair_hidden, bias=False)
        self.decided = nn.Parameter(torch.zeros(hidden + pair_hidden)) if decidable else None
        self.layers = nn.ModuleList(PairLayer(hidden, pair_hidden, heads) for _ in range(layers))
        self.atom_out = NormLinear(hidden, atom_types + more)
        self.pair_last = NormLinear(pair_hidden, pair_hidden)
        self.pair_out = Linear(pair_hidden, len(PAIR_TYPES) + more)
        orders = torch.zeros(pair_states)
        orders[: len(PAIR_TYPES)] = torch.arange(len(PAIR_TYPES))
        self.register_buffer("orders", orders, persistent=False)

    def bind(
        self, ptr: Tensor, asked: Tensor | None = None, decided: tuple[Tensor, Tensor] | None = None
    ) -> PairFunction:
        """The field on molecules of these sizes.

        Args:
            ptr: [B + 1], molecule g owns the atoms ``ptr[g]:ptr[g + 1]``; its pairs are laid out as
                :class:`~graphgen.ops.Pairs` has them.
            asked: [B, 2 p] the numbers asked for, of mean 0 and deviation 1, then for each a 1; both 0 where it is not
                asked for. None asks for nothing.
            decided: [N] and [T] bool, the atoms and pairs whose labels will not change; None if all may.

        Returns:
            ``(t [B], atoms [N] int64, pairs [T] int64) -> logits [N, c + more] and [T, 4 + more]`` in the dtype of the
            weights; of uncertain labels it takes probabilities [N, atom_states] and [T, pair_states]. Differentiable
            in the weights and the probabilities.
        """
        pairs = Pairs(ptr)
        log_sizes = pairs.ptr.diff().clamp(min=1).log().unsqueeze(1)

        def field(t: Tensor, atoms: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
            of_atoms, of_pairs = self._features(kinds, pairs)
            nothing = t.new_zeros(len(t), 2 * self.conditions)
            known = torch.cat((t.unsqueeze(1), log_sizes.to(t.dtype), nothing if asked is None else asked), 1)
            node_clock, pair_clock = self.time_out(ops.activation(self.time_in(known))).split(self.widths, 1)
            h = _look_up(self.atom.weight, atoms) + self.atom_in(of_atoms)
            e = _look_up(self.pair.weight, kinds) + self.pair_in(of_pairs)
            h, e = h + node_clock[pairs.of_atom], e + pair_clock[pairs.of_pair]
            if decided is not None:
                assert self.decided is not None, "the field was not made decidable"
                marks = self.decided.split(self.widths)
                h, e = (x + which.unsqueeze(1) * mark for x, which, mark in zip((h, e), decided, marks, strict=True))
            for layer in self.layers:
                h, e = layer(h, e, pairs)
            return self.atom_out(h), self.pair_out(ops.activation(self.pair_last(e)))

        return field

    def forward(self, t: Tensor, atoms: Tensor, pairs: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        return self.bind(ptr)(t, atoms, pairs)

    def _features(self, kinds: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """[N, 2 + walk] of atoms: a quarter of their bond orders' sum, share of the molecule that hangs together with
        them, walks back; [T, 1 + walk] of pairs: whether they hang together, walks from the one to the other."""
        orders = _look_up(self.orders, kinds)
        bonded = _look_up((self.orders > 0).to(orders.dtype), kinds)
        connected = ops.pair_connected(bonded > 0.5, pairs).to(orders.dtype)
        valence, others = (
            x.new_zeros(int(pairs.ptr[-1])).index_add(0, pairs.first, x).index_add(0, pairs.second, x)
            for x in (orders, connected)
        )
        share = (1 + others) / pairs.ptr.diff()[pairs.of_atom]
        returns, walks = ops.pair_walks(bonded, pairs, self.walk)
        of_atoms = torch.cat((valence.unsqueeze(1) / 4, share.unsqueeze(1), returns), 1)
        return of_atoms, torch.cat((connected.unsqueeze(1), walks), 1)


class Linear(nn.Linear):
    """Whose rows' bits do not depend on the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight.t(), self.bias)


class NormLinear(nn.Module):
    """A linear map of rows brought to mean 0 and variance 1."""

    def __init__(self, inner: int, outer: int, bias: bool = True) -> None:
        super().__init__()
        like = nn.Linear(inner, outer)
        self.weight = nn.Parameter(like.weight.detach().t().contiguous())
        self.bias = nn.Parameter(like.bias.detach()) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.norm_linear(x, self.weight, self.bias)


class PairLayer(nn.Module):
    """One round: atoms attend to atoms through their pairs, then pairs take in both ends and the attention logits."""

    def __init__(self, hidden: int, pair_hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = NormLinear(hidden, 3 * hidden)
        self.bias_gate = NormLinear(pair_hidden, 2 * heads)
        self.attended = Linear(hidden, hidden)
        self.own = NormLinear(hidden, 2 * hidden)
        self.own_out = Linear(2 * hidden, hidden)
        self.ends = NormLinear(hidden, pair_hidden)
        self.pair_own = NormLinear(pair_hidden, pair_hidden, bias=False)
        self.logits = nn.Linear(heads, pair_hidden, bias=False)
        self.pair_out = nn.Linear(pair_hidden, pair_hidden)

    def forward(self, h: Tensor, e: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """
        Args:
            h: [N, hidden]; e: [T, pair_hidden].
        """
        received, logits = ops.pair_attention(self.query_key_value(h), self.bias_gate(e), pairs, self.heads)
        h = h + self.attended(received)
        h = ops.norm_mlp(h, self.own.weight, self.own.bias, self.own_out.weight.t(), self.own_out.bias)
        e = ops.pair_update(
            e,
            self.ends(h),
            logits,
            self.pair_own.weight,
            self.logits.weight.t(),
            self.pair_out.weight.t(),
            self.pair_out.bias,
            pairs,
        )
        return h, e


def _look_up(table: Tensor, labels: Tensor) -> Tensor:
    """Rows of a table by labels [M] or, as their mean, by probabilities [M, S]."""
    if not labels.is_floating_point():
        return table[labels]
    return ops.linear(labels, table) if table.dim() == 2 else ops.linear(labels, table.unsqueeze(1)).squeeze(1)
