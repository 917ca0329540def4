"""Whole molecules by Gaussian noise on atoms and bonds together: what SDE, NCSN and DDPM have in common.

The idea is that of GDSS (Jo et al., ICML 2022): features of nodes and of pairs are noised at once, the pairs' with the
same noise in both orders, and carried back by their scores. Here label k of an atom or a pair is the point
``scale * e_k``, and the state ``a x0 + b noise``. In units of the noise, y = x / b, all that a process's clock means
is the signal s = scale a / b: given the label, y is normal around s e_k, so by Bayes' rule it gives label k the logit
s y_k, and with the label's share in the data, softmax(s y + log share) is all that a token's own state says. The field
reads these probabilities of all atoms and pairs, with s / sqrt(1 + s^2) for time, and adds to each logit what the rest
of the molecule says. From the posterior p of all labels follow

    E[x0 | x] = scale p,    score = (s p - y) / b.

GDSS learns a score for atoms and another for pairs, neither of which is told the time, and both in units that grow as
the noise falls. Here both scores come from one posterior of one field that sees atoms, pairs and time; what is left to
learn is bounded, and the same for every process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields.pair import PairFunction
from graphgen.graph import GraphBatch
from graphgen.models.whole import PairFieldModel, cross_entropy, frames
from graphgen.molecules.complete import PAIR_TYPES, CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops import Pairs
from graphgen.ops.noise import Stream

Parts = tuple[Tensor, Tensor]
"""[N, c] of the atoms and [sum of n^2, 4] of the pairs in both orders, as the solvers have them."""

Posterior = Callable[[Tensor, Parts], Parts]
"""``(signal [1] or [B], state in units of the noise) -> probabilities of the labels``."""

Walk = Callable[[Posterior, Parts, Tensor], tuple[float, Parts]]
"""``(posterior, start, ptr) -> the signal of its end, and the end``; both states in units of their noise."""


class JointGaussian(PairFieldModel, ABC):
    """Atoms and bonds together by a Gaussian process.

    Args:
        vocabulary: the atom types.
        settings: beside those of :class:`PairFieldModel`, ``scale``, the distance of the labels' points from the
            origin, and ``structure``, "joint".

    Raises:
        GraphgenError: a scale that is not above 0, another structure, or heads that do not divide the width.
    """

    def __init__(self, vocabulary: Vocabulary, **settings: Any) -> None:
        scale, structure = settings["scale"], settings["structure"]
        if structure != "joint":
            raise GraphgenError(f"structure {structure!r}: choose given or joint")
        if scale <= 0:
            raise GraphgenError(f"scale ({scale}) must be above 0")
        super().__init__(vocabulary, **settings)
        self.scale = scale

    # ---- the process ------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def first_signal(self) -> float:
        """Where samples start."""

    @abstractmethod
    def signal(self, u: Tensor) -> Tensor:
        """[B] where training looks, for u [B] uniform in [0, 1)."""

    @abstractmethod
    def plan(self, ids: Tensor, seed: int, *_: Any, **options: Any) -> Walk:
        """The walk that :meth:`sample` of these options takes.

        Raises:
            GraphgenError: an option out of range.
        """

    # ---- the posterior ----------------------------------------------------------------------------------------------

    def bind_logits(self, ptr: Tensor) -> PairFunction:
        """``(signal [B], atoms [N, c], pairs [T, 4]) -> [N, c], [T, 4]``: log-probabilities (up to a constant).

        Args:
            ptr: [B + 1], molecule g owns the atoms ``ptr[g]:ptr[g + 1]``. States are in units of the noise, pairs once
                each, as :class:`~graphgen.ops.Pairs` has them.
        """
        field, tokens = self.field.bind(ptr), Pairs(ptr)
        atom_prior, pair_prior = self.atom_shares.log(), self.pair_shares.log()

        def logits(signal: Tensor, atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
            own_atoms = signal[tokens.of_atom].unsqueeze(1) * atoms + atom_prior
            own_pairs = signal[tokens.of_pair].unsqueeze(1) * pairs + pair_prior
            time = signal * (1 + signal * signal).rsqrt()
            of_atoms, of_pairs = field(time, ops.softmax(own_atoms), ops.softmax(own_pairs))
            return own_atoms + of_atoms, own_pairs + of_pairs

        return logits

    def bind_posterior(self, ptr: Tensor, watch: Callable[[Tensor, Tensor], object] | None = None) -> Posterior:
        """What the solvers need of it, on their layout; a pair of an atom with itself has probabilities 0.

        So such a pair is noise around the origin, whose score is -y / b; it tells nothing and is told nothing.

        Args:
            watch: is shown the probabilities [N, c] and [T, 4].
        """
        logits, tokens = self.bind_logits(ptr), Pairs(ptr)

        def posterior(signal: Tensor, state: Parts) -> Parts:
            atoms, both = state
            found = logits(signal.expand(tokens.molecules), atoms, both[tokens.squares.upper])
            of_atoms, of_pairs = (ops.softmax(x) for x in found)
            if watch is not None:
                watch(of_atoms, of_pairs)
            squares = torch.zeros_like(both)
            squares[tokens.squares.upper] = of_pairs
            squares[tokens.squares.lower] = of_pairs
            return of_atoms, squares

        return posterior

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """Cross-entropy of the labels at one random signal per molecule, nats: per atom, plus 5 times that per pair.

        Each process looks where it goes. Denoising score matching weighted by b^2 is ``s^2 |p - e|^2 / 2`` of the
        posterior p and the label's e; that and the cross-entropy are least for the same p, the exact one. A squared
        error behind a softmax teaches nothing where the field is surely wrong, and s^2 weighs most where labels are
        beyond doubt; the gradient of the cross-entropy is the error of p itself.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        end = CompleteGraphs.of(batch)
        signal = self.signal(self.times(batch, seed, step))
        logits = self.bind_logits(end.ptr)(signal, *self.noised(end, signal, batch.ids, seed, step))
        return cross_entropy(end, *logits)

    def noised(self, end: CompleteGraphs, signal: Tensor, ids: Tensor, seed: int, step: int = 0) -> Parts:
        """States [N, c] of atoms and [T, 4] of pairs, in units of the noise, at signals [B]."""
        tokens = Pairs(end.ptr)
        atoms = ops.normal(end.ptr, len(self.vocabulary), seed, Stream.PATH, step, ids, self.dtype)
        pairs = ops.normal(tokens.pair_ptr, len(PAIR_TYPES), seed, Stream.PAIR_PATH, step, ids, self.dtype)
        return (
            atoms.scatter_add(1, end.atoms.unsqueeze(1), signal[tokens.of_atom].unsqueeze(1)),
            pairs.scatter_add(1, end.pairs.unsqueeze(1), signal[tokens.of_pair].unsqueeze(1)),
        )

    # ---- sampling ---------------------------------------------------------------------------------------------------

    def trajectory(
        self, ids: Tensor, seed: int, times: Sequence[float], steps: int | None = None
    ) -> tuple[GraphBatch, list[Frame]]:
        """What :meth:`sample` of the same arguments thinks of every atom and pair at some times of its way.

        Args:
            times: when to look, in order, from 0 to 1, as shares of the field's evaluations; taken to the nearest.
            steps: as :meth:`sample` takes them; None for as many as it takes by itself.

        Returns:
            The complete graphs, and the posterior at each time; at 1, that which the labels are taken from.
        """
        seen: list[tuple[Tensor, Tensor]] = []
        walk = self.plan(ids, seed, **({} if steps is None else {"steps": steps}))
        end = self._carry(ids, seed, None, walk, lambda *laws: seen.append(laws))
        return frames(end, times, [seen[round(time * (len(seen) - 1))] for time in times])

    @torch.no_grad()
    def _carry(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None,
        walk: Walk,
        watch: Callable[[Tensor, Tensor], object] | None = None,
    ) -> CompleteGraphs:
        """From noise around the data's mean to the likeliest label of every atom and pair where the walk ends."""
        sizes = self.draw_sizes(ids, seed) if sizes is None else sizes
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        squares = Pairs(ptr).squares
        atoms = ops.normal(ptr, len(self.vocabulary), seed, Stream.PRIOR, 0, ids, self.dtype)
        pairs = ops.normal(squares.ptr, len(PAIR_TYPES), seed, Stream.PAIR_PRIOR, 0, ids, self.dtype, symmetric=True)
        start = atoms + self.first_signal * self.atom_shares, pairs + self.first_signal * self.pair_shares
        posterior = self.bind_posterior(ptr, watch)
        signal, end = walk(posterior, start, ptr)
        of_atoms, of_pairs = posterior(torch.full((1,), signal, dtype=self.dtype, device=ptr.device), end)
        return CompleteGraphs(ptr, of_atoms.argmax(1), of_pairs[squares.upper].argmax(1))


def score(posterior: Posterior, signal: Tensor, b: Tensor, x: Parts) -> Parts:
    """The gradient of the log-density of states with noise of deviation b [1]."""
    y = scaled(x, 1 / b)
    law = scaled(posterior(signal, y), signal)
    return (law[0] - y[0]) / b, (law[1] - y[1]) / b


def scaled(state: Parts, factor: Tensor | float) -> Parts:
    """Both parts times a number, or one [1]."""
    return state[0] * factor, state[1] * factor
