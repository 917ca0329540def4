"""Graph discrete flow matching: whole molecules, atoms and bonds together, with no skeleton and no repair.

Every atom's label and every pair's bond is a token on a path from noise to data, see
:mod:`graphgen.solvers.discrete_flow`; the field learns the posterior of what each is in the end, given all of them
(Campbell et al. 2024; Gat et al. 2024; on graphs: Qin et al. 2024, DeFoG). By Bayes' rule a token's own state x adds
log(1 + t / ((1 - t) noise(x))) to the logit of x, which the field need not learn. Where the other tokens contradict x,
an atom with too many bonds, say, or a molecule in pieces, they take away as much, without bound as t goes to 1: one of
the tokens is wrong, however rarely any is. So the field also says how much of that evidence to trust, from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields.pair import PairFunction
from graphgen.graph import GraphBatch
from graphgen.models.conditions import Conditions
from graphgen.models.log_prob import LogProb
from graphgen.models.whole import PairFieldModel, cross_entropy, frames
from graphgen.molecules.complete import PAIR_TYPES, CompleteGraphs
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.scaffold import Decided, random_part
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary
from graphgen.ops import Pairs
from graphgen.ops.noise import Stream
from graphgen.solvers import discrete_flow

FLAWS = 0.27
PATHS = ("marginal", "uniform", "absorbing")
_LEFT = 2.0**-24  # the least 1 - t that is not 0 in float32
_DECIDED = 0.25  # of training molecules have a decided part
_TRUST = 2.0  # where its logit starts: most tokens are not contradicted


class GraphDFM(PairFieldModel):
    """Whole molecules by discrete flow matching.

    Args:
        vocabulary: the atom types.
        path: the noise that labels come from: "marginal" (each as often as in the training data), "uniform", or
            "absorbing" (a mask state, from which a token jumps once).
        hidden, pair_hidden, layers, heads: size of the :class:`~graphgen.fields.PairField`.
        conditions: names of properties that samples can be asked to have; the training data must have these.

    Raises:
        GraphgenError: an unknown path, heads that do not divide the width, or a property named twice.
    """

    name = "graph-dfm"

    def __init__(
        self,
        vocabulary: Vocabulary,
        path: str = "marginal",
        hidden: int = 96,
        pair_hidden: int = 48,
        layers: int = 5,
        heads: int = 4,
        conditions: Sequence[str] = (),
    ) -> None:
        if path not in PATHS:
            raise GraphgenError(f"path {path!r}: choose one of {', '.join(PATHS)}")
        super().__init__(
            vocabulary,
            extra_states=int(path == "absorbing"),
            more=1,
            decidable=True,
            path=path,
            hidden=hidden,
            pair_hidden=pair_hidden,
            layers=layers,
            heads=heads,
            conditions=list(conditions),
        )
        self.conditions = Conditions(conditions) if conditions else None

    @property
    def atom_noise(self) -> Tensor:
        """[S] the noise law of atoms; a mask is the last state."""
        return self._noise_law(self.atom_shares)

    @property
    def pair_noise(self) -> Tensor:
        """[S] the noise law of pairs; a mask is the last state."""
        return self._noise_law(self.pair_shares)

    def _noise_law(self, shares: Tensor) -> Tensor:
        if self.settings["path"] == "marginal":
            return shares
        if self.settings["path"] == "uniform":
            return torch.full_like(shares, 1 / len(shares))
        return nn.functional.pad(torch.zeros_like(shares), (0, 1), value=1.0)

    # ---- the posterior ----------------------------------------------------------------------------------------------

    def fit_prior(self, data: EncodedMolecules) -> None:
        super().fit_prior(data)
        if self.conditions is not None:
            self.conditions.fit(data)

    def bind_logits(
        self, ptr: Tensor, asked: Tensor | None = None, decided: tuple[Tensor, Tensor] | None = None
    ) -> PairFunction:
        """``(t [B], atoms [N], pairs [T]) -> [N, c], [T, 4]``: log-probabilities (up to a constant) of the ends.

        Args:
            ptr: [B + 1], molecule g owns the atoms ``ptr[g]:ptr[g + 1]``.
            asked, decided: as :class:`~graphgen.fields.PairField` has them; None asks for and decides nothing.
        """
        field, tokens = self.field.bind(ptr, asked, decided), Pairs(ptr)
        atom_noise, pair_noise = self.atom_noise, self.pair_noise

        def logits(t: Tensor, atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
            atom_logits, pair_logits = field(t, atoms, pairs)
            return (
                _with_evidence(atom_logits, atoms, t[tokens.of_atom], atom_noise),
                _with_evidence(pair_logits, pairs, t[tokens.of_pair], pair_noise),
            )

        return logits

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """Cross-entropy of the ends at a random point of the path, nats: per atom, plus 5 times that per pair.

        Times are as dense as steps of the "polydec" clock: what makes a molecule valid is decided late.
        Each property of a molecule is shown with probability 1/2, or none at all with 1/5, so that one field learns
        to be asked for any of them and for nothing (classifier-free guidance: Ho & Salimans 2022). Of every fourth
        molecule a part is decided, atoms that hang together and their pairs, so that it learns to complete scaffolds.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        end = CompleteGraphs.of(batch)
        t = _late(1 - self.times(batch, seed, step))
        atoms, pairs = self.corrupt(end, t, batch.ids, seed, step)
        decided = self._decided(batch, seed, step)
        atoms, pairs = torch.where(decided[0], end.atoms, atoms), torch.where(decided[1], end.pairs, pairs)
        shown = None if self.conditions is None else self.conditions.of_batch(batch, seed, step, self.dtype)
        atom_logits, pair_logits = self.bind_logits(end.ptr, shown, decided)(t, atoms, pairs)
        return cross_entropy(end, atom_logits, pair_logits)

    def _decided(self, batch: MoleculeBatch, seed: int, step: int) -> tuple[Tensor, Tensor]:
        ptr = batch.graph.ptr.long()
        one_each = torch.arange(len(ptr), device=ptr.device)
        chosen, share = ops.uniform(one_each, 2, seed, Stream.PART, step, batch.ids).unbind(1)
        ties = ops.uniform(ptr, 1, seed, Stream.PART_PLACE, step, batch.ids).squeeze(1)
        atoms, tokens = random_part(batch.graph, torch.where(chosen < _DECIDED, share, 0.0), ties), Pairs(ptr)
        return atoms, atoms[tokens.first] & atoms[tokens.second]

    def corrupt(self, end: CompleteGraphs, t: Tensor, ids: Tensor, seed: int, step: int = 0) -> tuple[Tensor, Tensor]:
        """States [N] of atoms and [T] of pairs at times t [B] of the paths to whole molecules."""
        tokens = Pairs(end.ptr)
        atom_uniform = ops.uniform(end.ptr, 2, seed, Stream.PATH, step, ids)
        pair_uniform = ops.uniform(tokens.pair_ptr, 2, seed, Stream.PAIR_PATH, step, ids)
        atoms = discrete_flow.corrupt(end.atoms, t[tokens.of_atom], self.atom_noise, atom_uniform)
        pairs = discrete_flow.corrupt(end.pairs, t[tokens.of_pair], self.pair_noise, pair_uniform)
        return atoms, pairs

    def log_prob(
        self, batch: MoleculeBatch, seed: int = 0, step: int = 0, samples: int = 1, steps: int = 20, **solver: Any
    ) -> LogProb:
        """An unbiased estimate of a lower bound on log P(labels and bonds, in this order of atoms), in nats.

        The share of molecules of that size, and of each token the :func:`~graphgen.solvers.discrete_flow.surprise`
        integrated over its path: a bound for sampling in many steps, at eta 0 and temperature 1. With a mask it is the
        weighted cross-entropy of masked diffusion. Times are drawn as 1 - v^2, v uniform, one in each of ``steps``
        equal parts of v; for uniform times the variance would be infinite, since a token that is still not the data's
        at 1 - t weighs 1 / (1 - t). What lies beyond 1 - 2^-24, where no token can still be, counts as just before.

        A molecule of n atoms has up to n! orders, so this is less than the log-probability of the molecule in any.

        Args:
            seed, step: of the noise.
            samples: draws to average over.
            steps: times that each draw looks at, one field evaluation each.
            solver: ignored; there is no ODE to solve.

        Returns:
            Value and standard error over the draws (NaN for one) per graph; -inf where no training molecule has so many
            atoms. Differentiable.

        Raises:
            GraphgenError: it has seen no data.

        Source: Campbell et al., NeurIPS 2022, section 3.2; Shi et al. and Sahoo et al., both NeurIPS 2024 (masks).
        """
        end = CompleteGraphs.of(batch)
        tokens, logits = Pairs(end.ptr), self.bind_logits(end.ptr)
        of_size = self.log_prob_of_sizes(end.ptr.diff()).to(self.dtype)
        values = []
        for sample in range(samples):
            value = of_size
            for part in range(steps):
                number = (step * samples + sample) * steps + part
                v = (1 - self.times(batch, seed, number) + part) / steps
                t = _late(v)
                atoms, pairs = self.corrupt(end, t, batch.ids, seed, number)
                of_atoms, of_pairs = logits(t, atoms, pairs)
                missed = v.new_zeros(len(v))
                missed = missed.index_add(0, tokens.of_atom, discrete_flow.surprise(atoms, end.atoms, of_atoms))
                missed = missed.index_add(0, tokens.of_pair, discrete_flow.surprise(pairs, end.pairs, of_pairs))
                value = value - missed * (2 * v / ((1 - t) * steps))
            values.append(value)
        return LogProb.of_draws(values, batch.graph, samples * steps)

    # ---- sampling ---------------------------------------------------------------------------------------------------

    def sample(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None = None,
        steps: int = 100,
        eta: float = 0.0,
        temperature: float = 1.0,
        distortion: str = "geometric",
        flaws: float = FLAWS,
        scaffold: MoleculeGraph | None = None,
        condition: Mapping[str, float] | None = None,
        guidance: float = 1.0,
    ) -> CompleteGraphs:
        """Whole molecules: carry noise along the flow.

        Args:
            ids: [B] what identifies each molecule to the noise source.
            sizes: [B] int64 numbers of atoms; None draws them as the training data has them.
            steps: one field evaluation each.
            eta: rate of jumps in detailed balance, which change no law but let later tokens correct earlier ones.
            temperature: the ends are drawn from ``softmax(logits / temperature)``; above 0.
            distortion: how t grows over the steps: "geometric", "polydec" or "identity", see
                :data:`~graphgen.solvers.discrete_flow.CLOCKS`.
            flaws: the posterior of n atoms is asked of no later t than 1 - flaws / n, when about so many of their bonds
                are still noise; from then on it is asked as of that t, until the last step. A learnt one meets too few
                flaws in states that are all but done to know them there: of QM9's molecules with one bond cut it gives,
                summed over the cut, 1.1 bonds back at t = 0.95, 0.6 at 0.99 and less than 0.1 at 0.999, where a right
                one gives 1 at any t. At 0, with an exact posterior, samples have the law of the data.
            scaffold: a part that every molecule contains, bonds and their absence included, as its first atoms. Its
                tokens are what they are from t = 0 on, which the field is told, and sizes are drawn from those that
                have room. The rest has the law of the data given them as far as its posterior is right.
            condition: values that are asked of some of the model's properties.
            guidance: w; with the posterior that knows what is asked and the one that does not, the ends are drawn from
                asked^w free^(1 - w), normalised (Nisonoff et al. 2024): at 1 asked alone, above 1 more than asked,
                at 0 free. Where both count, a step takes two field evaluations.

        Returns:
            The same molecule of the same (seed, id) in any batch, but for labels drawn so close to the border of two
            that the field's rounding decides, see :class:`~graphgen.fields.PairField`.

        Raises:
            GraphgenError: an option out of range, or a scaffold with an atom type that the model does not know or
                larger than any training molecule (or than the sizes), or a condition that the model does not know.
        """
        asked = self._asked(condition or {}, guidance, len(ids))
        return self._carry(
            ids, seed, sizes, steps, eta, temperature, distortion, flaws, scaffold, asked, guidance, lambda *_: None
        )

    def _asked(self, condition: Mapping[str, float], guidance: float, molecules: int) -> Tensor | None:
        if not 0 <= guidance < math.inf:
            raise GraphgenError(f"guidance ({guidance}) must be 0 or more")
        if not condition:
            if guidance != 1:
                raise GraphgenError(f"guidance ({guidance}) without a condition has nothing to guide to; give one")
            return None
        if self.conditions is None:
            raise GraphgenError(
                f"this {self.name} was trained without conditions, so it cannot be asked for {', '.join(condition)}; "
                "train one with --conditions"
            )
        return self.conditions.asked(condition, molecules, self.dtype)

    def _bind_guided(
        self, ptr: Tensor, asked: Tensor | None, guidance: float, decided: tuple[Tensor, Tensor] | None
    ) -> PairFunction:
        """As :meth:`bind_logits`, of asked^guidance free^(1 - guidance)."""
        if asked is None or guidance == 0:
            return self.bind_logits(ptr, None, decided)
        if guidance == 1:
            return self.bind_logits(ptr, asked, decided)
        free, told = self.bind_logits(ptr, None, decided), self.bind_logits(ptr, asked, decided)

        def logits(t: Tensor, atoms: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
            both = zip(free(t, atoms, pairs), told(t, atoms, pairs), strict=True)
            of_atoms, of_pairs = (one + guidance * (other - one) for one, other in both)
            return of_atoms, of_pairs

        return logits

    def trajectory(
        self, ids: Tensor, seed: int, times: Sequence[float], steps: int = 100
    ) -> tuple[GraphBatch, list[Frame]]:
        """What :meth:`sample` of the same arguments thinks of every atom and pair at some times of its way.

        Args:
            times: when to look, in order, from 0 to 1, as shares of the steps; taken to the nearest step.

        Returns:
            The complete graphs, and a frame for each time: the posterior then, and at 1 the molecule itself.
        """
        seen: dict[int, tuple[Tensor, Tensor]] = {}

        def watch(step: int, atom_law: Tensor, pair_law: Tensor) -> None:
            seen[step] = atom_law, pair_law

        end = self._carry(ids, seed, None, steps, 0.0, 1.0, "geometric", FLAWS, None, None, 1.0, watch)
        ends = (end.atoms, len(self.vocabulary)), (end.pairs, len(PAIR_TYPES))
        atoms, pairs = (nn.functional.one_hot(labels, count).to(self.dtype) for labels, count in ends)
        seen[steps] = atoms, pairs
        return frames(end, times, [seen[round(time * steps)] for time in times])

    @torch.no_grad()
    def _carry(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None,
        steps: int,
        eta: float,
        temperature: float,
        distortion: str,
        flaws: float,
        scaffold: MoleculeGraph | None,
        asked: Tensor | None,
        guidance: float,
        watch: Callable[[int, Tensor, Tensor], object],
    ) -> CompleteGraphs:
        if distortion not in discrete_flow.CLOCKS:
            raise GraphgenError(f"distortion {distortion!r}: choose one of {', '.join(discrete_flow.CLOCKS)}")
        if steps < 1 or eta < 0 or temperature <= 0 or not 0 <= flaws < math.inf:
            raise GraphgenError(
                f"steps ({steps}) must be at least 1, eta ({eta}) 0 or more, the temperature ({temperature}) of a "
                f"{self.name} above 0, and flaws ({flaws}) 0 or more"
            )
        scaffold = scaffold or MoleculeGraph((), ())
        least = len(scaffold.atoms)
        sizes = self.draw_sizes(ids, seed, least) if sizes is None else sizes
        if bool((sizes < least).any()):
            raise GraphgenError(f"a scaffold of {least} atoms has no room in molecules of {int(sizes.min())}")
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        tokens, decided = Pairs(ptr), Decided.by(scaffold, ptr, self.vocabulary)
        begins = tokens.pair_ptr
        atom_noise, pair_noise = self.atom_noise, self.pair_noise

        def drawn(law: Tensor, bounds: Tensor, stream: Stream, step: int = 0) -> Tensor:
            return discrete_flow.draw(law, ops.uniform(bounds, 1, seed, stream, step, ids).squeeze(1))

        logits = self._bind_guided(ptr, asked, guidance, decided.which(tokens) if least else None)
        clock = discrete_flow.CLOCKS[distortion]
        latest = (1 - flaws / sizes.clamp(min=1)).clamp(min=0).to(self.dtype)
        atoms = drawn(atom_noise.expand(int(ptr[-1]), -1), ptr, Stream.PRIOR)
        pairs = drawn(pair_noise.expand(int(begins[-1]), -1), begins, Stream.PAIR_PRIOR)
        atoms, pairs = decided.hold(atoms, pairs)
        for step in range(steps):
            t, end = clock(step / steps), clock((step + 1) / steps)
            now = latest.clamp(max=t) if step < steps - 1 else torch.full_like(latest, t)
            found = logits(now, atoms, pairs)
            atom_law, pair_law = ((x / temperature).softmax(1) for x in found)
            watch(step, atom_law, pair_law)
            atom_law = discrete_flow.transition(atoms, atom_law, t, end, atom_noise, eta)
            pair_law = discrete_flow.transition(pairs, pair_law, t, end, pair_noise, eta)
            atoms = drawn(atom_law, ptr, Stream.STEP, step)
            pairs = drawn(pair_law, begins, Stream.PAIR_STEP, step)
            atoms, pairs = decided.hold(atoms, pairs)
        return CompleteGraphs(ptr, atoms, pairs)


def _late(v: Tensor) -> Tensor:
    """1 - v^2, dense towards 1 for uniform v, and below it."""
    return 1 - (v * v).clamp(min=_LEFT)


def _with_evidence(found: Tensor, state: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Logits of the ends with what their own states say of them, as far as the last column of what was found trusts it.

    What noise never is, a decided label beside a mask, leaves nothing to trust; a mask itself says nothing.
    """
    logits, trust = found[:, :-1], (found[:, -1] + _TRUST).sigmoid()
    own = nn.functional.one_hot(state, len(noise))[:, : logits.shape[1]]
    evidence = discrete_flow.evidence(state, t, noise) * torch.where(noise[state] > 0, trust, 1.0)
    return logits + own * evidence.unsqueeze(1)
