"""The graph DDPM: a Markov chain that noises the atoms of a molecule whose bonds are given, run backwards.

The chain's states are x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, t = 1 ... T (Ho, Jain and Abbeel, NeurIPS 2020).
Given x0 a step back is normal with known mean and variance, q(x_{t-1} | x_t, x0); the model's puts the mean point
E[x0 | x_t] in the place of x0. (That point is (x_t - sqrt(1 - abar_t) noise) / sqrt(abar_t), which is not the step's
mean.) Whatever the network is asked for, it is a mean of the labels' points, so what is read off it is the labels'
probabilities; and the step to x_0 is one to labels, drawn with those at t = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.models.gaussian import Denoiser, GaussianModel
from graphgen.models.log_prob import LogProb
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers import denoising_chain

PREDICTIONS = ("x0", "epsilon", "v")
SAMPLERS = ("ancestral", "ddim")

# The least probability read off a predicted point, so that its logarithm is finite.
_LEAST = 1e-6
# Of the draws of t for the bound, how many fall evenly in log snr; the others fall where labels are in doubt.
# Logits are right where they are not, but a network of noise or v errs by about as much on every scale of the noise.
_EVENLY = {"x0": 0.1, "epsilon": 0.5, "v": 0.5}


def linear_betas(steps: int) -> list[float]:
    """From 1e-4 to 0.02 in 1000 steps (Ho et al. 2020, section 4); in fewer, by so much more each.

    Raises:
        GraphgenError: so few steps that one of them would have to have a beta of 1 or more.
    """
    if steps <= 20:
        raise GraphgenError(
            f"a linear schedule of {steps} steps noises more in one than a step can; take more than 20, or cosine"
        )
    first, last = 1e-4 * 1000 / steps, 0.02 * 1000 / steps
    return [first + (last - first) * k / (steps - 1) for k in range(steps)]


def cosine_betas(steps: int) -> list[float]:
    """With abar_t = f(t) / f(0), f(t) = cos^2((t / T + 0.008) / 1.008 pi / 2), and no beta above 0.999.

    Source: Nichol and Dhariwal, ICML 2021, equation 17.
    """
    f = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
    return [min(1 - after / before, 0.999) for before, after in pairwise(f)]


SCHEDULES: dict[str, Callable[[int], list[float]]] = {"linear": linear_betas, "cosine": cosine_betas}


def signal_left(schedule: str, chain: int) -> list[float]:
    """abar_0 = 1, ..., abar_T of a chain of T steps.

    Raises:
        GraphgenError: an unknown schedule, or too few steps.
    """
    if schedule not in SCHEDULES:
        raise GraphgenError(f"schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    if chain < 2:
        raise GraphgenError(f"chain ({chain}): it needs 2 steps or more")
    return list(accumulate((1 - beta for beta in SCHEDULES[schedule](chain)), mul, initial=1.0))


def visited(chain: int, steps: int | None) -> list[int]:
    """The t, from T to 0, that so many steps visit, spread evenly; None: all.

    Raises:
        GraphgenError: more steps than the chain has, or none.
    """
    count = chain if steps is None else steps
    if not 1 <= count <= chain:
        raise GraphgenError(f"steps ({count}): this chain has {chain}; choose 1 to {chain}")
    return [chain * (count - k) // count for k in range(count + 1)]


def noise_share(sampler: str, eta: float) -> float:
    """The eta of :func:`graphgen.solvers.denoising_chain` for "ancestral", or "ddim" of an eta.

    Raises:
        GraphgenError: an unknown sampler, or an eta out of range or place.
    """
    if sampler not in SAMPLERS:
        raise GraphgenError(f"sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    if not 0 <= eta <= 1 or (sampler == "ancestral" and eta):
        raise GraphgenError(f"eta ({eta}) belongs to the sampler ddim and must be in [0, 1]")
    return eta if sampler == "ddim" else 1.0


class GraphDDPM(GaussianModel):
    """Atoms on given bonds by denoising diffusion.

    Args:
        vocabulary: the atom types.
        field, hidden, layers, context_layers: of the :class:`~graphgen.fields.NeighbourhoodField`.
        scale: distance of the labels' points from the origin, in units of the prior's noise. It says where on the chain
            labels are decided, sqrt(abar / (1 - abar)) scale between 4 and 0.4: at 2, that is in the middle of either
            schedule.
        label_smoothing: moves the points, see :class:`~graphgen.models.GraphCNF`.
        chain: T, its number of steps.
        schedule: of beta, "linear" (:func:`linear_betas`) or "cosine" (:func:`cosine_betas`).
        prediction: what the network is asked for. "x0": the posterior form of :mod:`graphgen.models.gaussian`, labels'
            logits. "epsilon": the noise (Ho et al., equation 14). "v": sqrt(abar) noise - sqrt(1 - abar) x0 (Salimans
            and Ho, ICLR 2022). The points that the last two lead to are brought among the means of the labels' points:
            published samplers clip them to the range of the data likewise.

    Attributes:
        alpha_bars: abar_0 = 1, ..., abar_T.

    Raises:
        GraphgenError: a setting out of range.
    """

    name = "graph-ddpm"

    def __init__(
        self,
        vocabulary: Vocabulary,
        field: str = "nn",
        hidden: int = 64,
        layers: int = 3,
        context_layers: int = 3,
        scale: float = 2.0,
        label_smoothing: float = 0.0,
        chain: int = 1000,
        schedule: str = "linear",
        prediction: str = "x0",
    ) -> None:
        super().__init__(
            vocabulary,
            field=field,
            hidden=hidden,
            layers=layers,
            context_layers=context_layers,
            scale=scale,
            label_smoothing=label_smoothing,
            chain=chain,
            schedule=schedule,
            prediction=prediction,
        )
        if prediction not in PREDICTIONS:
            raise GraphgenError(f"prediction {prediction!r}: choose one of {', '.join(PREDICTIONS)}")
        self.alpha_bars = signal_left(schedule, chain)

    @property
    def has_marginals(self) -> bool:
        """Whether the network says something of the labels where there is only noise: not by predicting that noise."""
        return self.settings["prediction"] != "epsilon"

    # ---- what the network says --------------------------------------------------------------------------------------

    def bind_prediction(self, graph: GraphBatch) -> Denoiser:
        """The network's own output: noise or v."""
        field = self.field.bind(graph)
        return lambda a, b, x: field(a, x)

    def bind_probabilities(self, graph: GraphBatch) -> Denoiser:
        """The probabilities of every atom's label."""
        if self.settings["prediction"] == "x0":
            logits = super().bind_logits(graph)
            return lambda a, b, x: ops.softmax(logits(a, b, x))
        predicted = self.bind_prediction(graph)
        is_noise = self.settings["prediction"] == "epsilon"
        ones = torch.ones(len(self.vocabulary), 1, dtype=self.dtype, device=graph.device)

        def probabilities(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
            out = predicted(a, b, x)
            # x = a x0 + b noise and v = a noise - b x0, with a^2 + b^2 = 1.
            of_x, of_out = (1 / a, b / a) if is_noise else (a, b)
            x0 = ops.graph_scale(of_x, x, graph.ptr) - ops.graph_scale(of_out, out, graph.ptr)
            share = ((x0 - self.shift) / self.spread).clamp(min=_LEAST)
            return share / ops.linear(share, ones)

        return probabilities

    def bind_logits(self, graph: GraphBatch) -> Denoiser:
        """The log-probabilities (up to a constant) of every atom's label."""
        if self.settings["prediction"] == "x0":
            return super().bind_logits(graph)
        probabilities = self.bind_probabilities(graph)
        return lambda a, b, x: probabilities(a, b, x).log()

    def bind_mean(self, graph: GraphBatch) -> Denoiser:
        """E[x0 | x], the mean point of every atom's label."""
        probabilities = self.bind_probabilities(graph)
        return lambda a, b, x: probabilities(a, b, x) * self.spread + self.shift

    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a = sqrt(abar) and b = sqrt(1 - abar) at steps t, int64."""
        alpha_bar = torch.tensor(self.alpha_bars, dtype=torch.float64, device=t.device)[t]
        return alpha_bar.sqrt().to(self.dtype), (1 - alpha_bar).sqrt().to(self.dtype)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """The objective at one random step of the chain per molecule, to be minimised.

        "epsilon" and "v": mean squared error of the prediction; for the noise that is L_simple (Ho et al., equation
        14). "x0": cross-entropy of the labels, nats per atom. The bound's own term there is the squared error of the
        mean point times (snr_{t-1} - snr_t) / 2; both are least for the exact posterior, but these weights range over
        many powers of ten, and a squared error behind a softmax teaches nothing where the network is surely wrong,
        while the cross-entropy's gradient is the error of the probabilities itself, on every step alike.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        graph = batch.graph
        t = 1 + (self.times(batch, seed, step) * self.settings["chain"]).long()
        a, b = self.signal(t)
        x0, noise = self.points(batch.atoms), self.noise(graph, batch.ids, seed, Stream.PATH, step)
        x = ops.graph_scale(a, x0, graph.ptr) + ops.graph_scale(b, noise, graph.ptr)
        if self.settings["prediction"] == "x0":
            return nn.functional.cross_entropy(self.bind_logits(graph)(a, b, x), batch.atoms)
        wanted = noise
        if self.settings["prediction"] == "v":
            wanted = ops.graph_scale(a, noise, graph.ptr) - ops.graph_scale(b, x0, graph.ptr)
        return nn.functional.mse_loss(self.bind_prediction(graph)(a, b, x), wanted)

    def log_prob(self, batch: MoleculeBatch, seed: int = 0, step: int = 0, samples: int = 1, **solver: Any) -> LogProb:
        """An unbiased estimate of a lower bound on log P(labels | bonds) of every molecule, in nats.

        The variational bound (Ho et al., equation 5) of the chain that ancestral sampling in all steps walks,

            E_q[log p(labels | x_1)] - sum_{t > 1} KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) - KL(q(x_T | x0) || N),

        whose first term is discrete, with the labels' probabilities at t = 1 (sampling at temperature 1 draws from
        these; there is next to no doubt in them, so the largest is as good), whose last is known, and whose others are
        ``(snr_{t-1} - snr_t) |x0 - E[x0 | x_t]|^2 / 2``, snr = abar / (1 - abar). Each draw looks at one t and divides
        its term by the probability of that t. Many draws fall as exp(-spread^2 snr / 8) grows, the root of about the
        chance to mistake a label: the variance is least where draws follow the root of a term's mean square. The rest
        fall evenly in log snr. They are stratified, so the true standard error is less than the stated.

        "epsilon" and "v" have a looser bound: what they err at little noise, where labels are beyond doubt, counts too.

        Args:
            seed, step: of the noise.
            samples: draws, one field evaluation each.
            solver: ignored; there is no ODE to solve.

        Returns:
            Value and standard error over the draws (NaN for one) per graph. Differentiable.
        """
        graph, device = batch.graph, batch.graph.device
        proposal, weight = (torch.tensor(numbers, dtype=torch.float64, device=device) for numbers in self._terms())
        below = proposal.cumsum(0)[:-1]
        logits = self.bind_logits(graph)
        x0, sizes = self.points(batch.atoms), graph.ptr.diff()
        known = sizes.to(x0.dtype) * self._prior_divergence()
        values = []
        for sample in range(samples):
            number = step * samples + sample
            where = (self.times(batch, seed, number).double() + sample) / samples
            index = torch.searchsorted(below, where, right=True)
            a, b = self.signal(index + 1)
            noise = self.noise(graph, batch.ids, seed, Stream.PATH, number)
            found = logits(a, b, ops.graph_scale(a, x0, graph.ptr) + ops.graph_scale(b, noise, graph.ptr))
            miss = x0 - (ops.softmax(found) * self.spread + self.shift)
            divergence = weight[index].to(x0.dtype) * ops.graph_dot(miss, miss, graph.ptr)
            surprise = nn.functional.cross_entropy(found, batch.atoms, reduction="none")
            reconstruction = ops.segment_reduce(surprise.unsqueeze(1), graph.ptr).squeeze(1)
            term = torch.where(index == 0, reconstruction, divergence)
            values.append(-known - term / proposal[index].to(x0.dtype))
        return LogProb.of_draws(values, graph, samples)

    def _terms(self) -> tuple[list[float], list[float]]:
        """Of t = 1 ... T the probability to be drawn for the bound, and what the squared error is multiplied with."""
        snr = [alpha_bar / (1 - alpha_bar) for alpha_bar in self.alpha_bars[1:]]
        doubt = [0.0, *(math.exp(-(self.spread**2) * ratio / 8) for ratio in snr)]
        falls = [1.0, *(1 - after / before for before, after in pairwise(snr))]
        evenly = _EVENLY[self.settings["prediction"]]
        proposal = [
            evenly * fall / sum(falls) + (1 - evenly) * (after - before) / doubt[-1]
            for fall, (before, after) in zip(falls, pairwise(doubt), strict=True)
        ]
        return proposal, [0.0, *((before - after) / 2 for before, after in pairwise(snr))]

    def _prior_divergence(self) -> float:
        """KL(q(x_T | x0) || N(0, I)) of one atom, nats."""
        alpha_bar, others = self.alpha_bars[-1], len(self.vocabulary) - 1
        square = (self.spread + self.shift) ** 2 + others * self.shift**2
        return 0.5 * (alpha_bar * square - (others + 1) * (alpha_bar + math.log1p(-alpha_bar)))

    # ---- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        graph: GraphBatch,
        ids: Tensor,
        seed: int,
        steps: int | None = None,
        sampler: str = "ancestral",
        eta: float = 0.0,
        temperature: float = 0.0,
    ) -> Tensor:
        """Atoms for given bonds: the chain backwards, from N(0, I).

        Args:
            graph: the bonds; ids: [B] what identifies each molecule to the noise source.
            steps: how many of the chain's, one field evaluation each; fewer are spread evenly. None: all.
            sampler: "ancestral", with the posterior's variance; or "ddim" (Song, Meng and Ermon, ICLR 2021, equation
                12), with eta^2 times that.
            eta: of "ddim", 0 (no noise after the start) to 1 (ancestral).
            temperature: of the labels, which are drawn from ``softmax(logits / temperature)`` of the last step, or are
                the largest one at 0.

        Returns:
            [N] int64 indices into the vocabulary: the same bits for any batching of the same (seed, ids).

        Raises:
            GraphgenError: an unknown sampler, or steps or eta out of range.
        """
        eta, chain = noise_share(sampler, eta), self._chain(steps)
        found = self._walk(graph, ids, seed, chain, eta, {len(chain) - 2})
        probabilities = found[len(chain) - 2]
        if temperature == 0:
            return probabilities.argmax(1)
        return self.draw_labels(probabilities.clamp(min=_LEAST).log(), graph, ids, seed, temperature)

    @torch.no_grad()
    def trajectory(
        self, graph: GraphBatch, ids: Tensor, seed: int, times: Sequence[float], steps: int | None = None
    ) -> list[Frame]:
        """What :meth:`sample` of the same arguments thinks of every atom at some times of its way.

        Args:
            times: when to look, shares of all steps from 0 to 1. The probabilities are those that the nearest step is
                made with; at 1, those of the last one.
        """
        chain = self._chain(steps)
        last = len(chain) - 2
        wanted = [min(round(time * (last + 1)), last) for time in times]
        seen = self._walk(graph, ids, seed, chain, 1.0, set(wanted))
        return [Frame(time, seen[k]) for time, k in zip(times, wanted, strict=True)]

    @torch.no_grad()
    def marginals(self, graph: GraphBatch, ids: Tensor, seed: int, draws: int = 4) -> Tensor:
        """[N, c] probability of every label of each atom, given the bonds alone.

        At t = T the state is noise and tells next to nothing, so what is learnt there is the law given the bonds.

        Args:
            draws: of the noise, to average what the field makes of it.

        Raises:
            GraphgenError: a network that predicts the noise, which at t = T is the state itself, whatever the labels.
        """
        if not self.has_marginals:
            raise GraphgenError(
                "marginals are read off the point predicted from pure noise, which prediction epsilon leaves open; "
                "train with x0 or v"
            )
        probabilities = self.bind_probabilities(graph)
        a, b = self._signal_of_all(self.settings["chain"], graph)
        drawn = (self.noise(graph, ids, seed, Stream.PRIOR, step) for step in range(draws))
        return torch.stack([probabilities(a, b, x) for x in drawn]).mean(0)

    def _chain(self, steps: int | None) -> list[int]:
        """The steps t that a sample visits, from T to 0."""
        return visited(self.settings["chain"], steps)

    def _signal_of_all(self, t: int, graph: GraphBatch) -> tuple[Tensor, Tensor]:
        """:meth:`signal` of all graphs at one t."""
        alpha_bar = self.alpha_bars[t]
        like = torch.empty(graph.num_graphs, dtype=self.dtype, device=graph.device)
        return torch.full_like(like, math.sqrt(alpha_bar)), torch.full_like(like, math.sqrt(1 - alpha_bar))

    def _walk(
        self, graph: GraphBatch, ids: Tensor, seed: int, chain: list[int], eta: float, wanted: set[int]
    ) -> dict[int, Tensor]:
        """The labels' probabilities that some of the steps were made with, by the steps' numbers."""
        probabilities = self.bind_probabilities(graph)
        seen: dict[int, Tensor] = {}

        def predict(k: int, x: Tensor) -> Tensor:
            found = probabilities(*self._signal_of_all(chain[k], graph), x)
            if k in wanted:
                seen[k] = found
            return found * self.spread + self.shift

        start = self.noise(graph, ids, seed, Stream.PRIOR)
        alpha_bars = [self.alpha_bars[t] for t in chain]
        denoising_chain(predict, start, graph, alpha_bars, predicts="data", eta=eta, seed=seed, graph_ids=ids)
        return seen
