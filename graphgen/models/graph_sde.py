"""A reversible SDE on graphs: atoms noised and denoised on the bonds of a molecule, by a score that bonds carry.

The bonds stay, the atoms' points are noised by an SDE of Song et al. (ICLR 2021), x(t) = a(t) x0 + b(t) noise, and the
SDE is run backwards with the score s(t, x) = grad log p_t(x | bonds):

    dx = (drift(t) x - diffusion(t)^2 s) dt + diffusion(t) dw.

Its probability flow has the same marginals, and the likelihood: :mod:`graphgen.models.probability_flow`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.losses import denoising_score_matching, implicit_score_matching, sliced_score_matching
from graphgen.models.diffusion import SAMPLERS, Diffusion
from graphgen.models.probability_flow import ProbabilityFlowModel
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers import odeint, reverse_sde

OBJECTIVES = ("denoising", "sliced", "implicit")

# Up to this signal the posterior is gentle enough to learn from its trace.
_GENTLE = 2.0

# Times an odd number that is nobody's seed, a step makes a seed of its own.
_GOLDEN = 0x9E3779B97F4A7C15


class GraphSDE(ProbabilityFlowModel):
    """Atoms on given bonds by a diffusion run backwards.

    The proposal that this implements ("Reversible SDE on graphs", equations 7 to 17) noises the nodes' features alone,
    takes the score of a node from the node and its neighbours, and adds the nodes' scores up through dx/dG. With fixed
    bonds dx_i/dG is the matrix that selects row i of the features: the sum of equation 16 is the nodes' scores side by
    side, and the term of equation 17 with its derivative is 0. The drift, a multiple of x, is local as it stands.

    What the proposal ignores: even if the atoms' law factorised over neighbourhoods at t = 0, the marginal of the
    noised atoms does not at t > 0. A noised neighbour is no longer certain, so what lies behind it counts, and the true
    score of an atom depends on all of its molecule (as the marginals of a Markov field do). The score here sees
    ``layers`` bonds far: 1 is the proposal, more see further.

    Args:
        vocabulary: the atom types.
        field, hidden, layers, context_layers: of the :class:`~graphgen.fields.NeighbourhoodField`.
        scale: distance of the labels' points from the origin. Only its ratio to the noise means anything. For VP and
            sub-VP, whose deviation ends at 1 and whose signal ends at 0.0066 of the start, it says how much is left at
            t = 1, where samples start from pure noise. At 4, 0.026 deviations are, a mismatch of 0.0003 nats per atom;
            and labels are decided (signal 1 to 4) in the middle of the way, at t = 0.26 to 0.52. For VE it means
            nothing, as its noise follows it, from scale / 8 to 40 scale; 4 shows the field the numbers that VP does.
        label_smoothing: moves the points, see :class:`~graphgen.models.GraphCNF`.
        sde: "vp" or "subvp", of beta from 0.1 to 20, or "ve".
        objective: how the score is learnt at random t, each weighted by b^2. "denoising" (Vincent 2011):
            ``|b s + z|^2 / 2`` with z the noise that was added, which is ``(a / b)^2 |E[x0 | x] - x0|^2 / 2``. Of the
            noised points themselves: "implicit" (Hyvarinen 2005, the proposal's equation 17),
            ``b^2 (|s|^2 / 2 + tr ds/dx)`` with Hutchinson's trace, or "sliced" (Song et al. 2019),
            ``b^2 (v.(ds/dx)v + (v.s)^2 / 2)`` for a random v. Their means differ by constants, so all three have the
            same minimiser; the first has by far the least variance. The posterior's slope, at most half the square of
            the signal, makes the other two so noisy towards t_min that training strays; they learn up to a signal of 2
            only (a slope of 2, not 32). Beyond, an atom's own state says most, and the field is as it was there.

    The weight b^2 is that of the likelihood, diffusion^2 (Song et al., NeurIPS 2021), but for a factor: for VE a
    constant one, for VP one between 10 and 20.

    Attributes:
        sde: the :class:`~graphgen.ops.VP`, :class:`~graphgen.ops.SubVP` or :class:`~graphgen.ops.VE`.
        t_min: where sampling and likelihood end: the signal, scale a / b, is 8 there. Nearer to 0 no label changes.
        t_trained: where training ends, t_min of "denoising".

    Raises:
        GraphgenError: a setting out of range, or a scale that leaves signal at t = 1.
    """

    name = "graph-sde"

    def __init__(
        self,
        vocabulary: Vocabulary,
        field: str = "nn",
        hidden: int = 64,
        layers: int = 3,
        context_layers: int = 3,
        scale: float = 4.0,
        label_smoothing: float = 0.0,
        sde: str = "vp",
        objective: str = "denoising",
    ) -> None:
        super().__init__(
            vocabulary,
            field=field,
            hidden=hidden,
            layers=layers,
            context_layers=context_layers,
            scale=scale,
            label_smoothing=label_smoothing,
            sde=sde,
            objective=objective,
        )
        if objective not in OBJECTIVES:
            raise GraphgenError(f"objective {objective!r}: choose one of {', '.join(OBJECTIVES)}")
        self.diffusion = Diffusion(sde, scale, self.spread)
        self.sde, self.t_min = self.diffusion.sde, self.diffusion.t_min
        self.t_trained = self.t_min if objective == "denoising" else self.diffusion.time_of(_GENTLE / self.spread)

    # ---- the process ------------------------------------------------------------------------------------------------

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a and b [B] at times [B]."""
        return self.diffusion.levels(t, self.dtype)

    @property
    def ratios(self) -> tuple[float, float]:
        """r at t = 1 and at t_min."""
        return self.diffusion.ratio(1.0), self.diffusion.ratio(self.t_min)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """The objective per atom, at one t per molecule, uniform from t_trained to 1.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        graph = batch.graph
        a, b = self.levels(self.t_trained + (1 - self.t_trained) * self.times(batch, seed, step))
        posterior = self.bind_score(graph)

        def score(x: Tensor) -> Tensor:
            return posterior(a, b, x)

        x = ops.graph_scale(a, self.points(batch.atoms), graph.ptr)
        seed = (seed + step * _GOLDEN) % 2**64
        if self.settings["objective"] == "denoising":
            each = denoising_score_matching(score, x, graph, b, seed, batch.ids)
        else:
            x = x + ops.graph_scale(b, self.noise(graph, batch.ids, seed, Stream.PATH), graph.ptr)
            if self.settings["objective"] == "sliced":
                each = sliced_score_matching(score, x, graph, seed=seed, graph_ids=batch.ids)
            else:
                reach = self.field.reach
                each = implicit_score_matching(score, x, graph, "hutchinson", 1, "rademacher", seed, batch.ids, reach)
        return (b * b * each).sum() / batch.atoms.numel()

    def log_density(
        self,
        x: Tensor,
        batch: MoleculeBatch,
        seed: int = 0,
        probes: int = 1,
        trace: str = "hutchinson",
        **solver: Any,
    ) -> Tensor:
        """[B] log-density of states x [N, c] at t_min under the probability flow; arguments as :meth:`log_prob`'s."""
        blur = float(self.sde.std(self.t_min))
        log_p, _ = self.carry_back(x / blur, batch, seed, probes, trace, **solver)
        return log_p - batch.graph.ptr.diff().to(x.dtype) * (math.log(blur) * x.shape[1])

    # ---- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        graph: GraphBatch,
        ids: Tensor,
        seed: int,
        steps: int = 100,
        sampler: str = "reverse-diffusion",
        corrections: int = 0,
        snr: float = 0.16,
        temperature: float = 0.0,
    ) -> Tensor:
        """Atoms for given bonds: carry noise from t = 1 to t_min, and label by the posterior there.

        Args:
            graph: the bonds; ids: [B] what identifies each molecule to the noise source.
            steps: of the sampler: equal ones in t with a field evaluation each, or of "ode" equal ones in r of the
                classical Runge-Kutta method with four.
                Few steps bias what is drawn: at 20, by up to 0.06 of a share of 0.8 for VE and 0.05 for "ancestral".
            sampler: a predictor, "euler", "reverse-diffusion" or "ancestral" (Song et al., ICLR 2021, algorithms 2 to
                4), or "ode", the probability flow.
            corrections: Langevin steps before each step, a field evaluation each (algorithms 4 and 5).
            snr: their ratio of signal to noise, by each molecule's own norms, so that it does not depend on its batch.
                The fewer atoms, the more these vary, and steps that follow them bias what is drawn: of single atoms
                a share of 0.8 became 0.69 (0.75 at 0.05), of chains of nine 0.79.
            temperature: 0 takes the likeliest label. Else labels are drawn from ``softmax(logits / temperature)`` of
                the posterior, which at t_min leaves hardly any doubt.

        Returns:
            [N] int64 indices into the vocabulary: the same bits for any batching of the same (seed, ids).

        Raises:
            GraphgenError: a sampler that there is not or that the SDE does not have, or too few steps.
        """
        logits = self._walk(graph, ids, seed, steps, sampler, corrections, snr)
        return self.draw_labels(logits, graph, ids, seed, temperature)

    @torch.no_grad()
    def marginals(self, graph: GraphBatch, ids: Tensor, seed: int, draws: int = 4) -> Tensor:
        """[N, c] probability of every label of each atom, given the bonds alone.

        The posterior at t = 1, where the state is noise and tells nothing.

        Args:
            draws: of the noise, to average what the field makes of it.
        """
        logits = self.bind_logits(graph)
        a, b = self.levels(torch.ones(graph.num_graphs, device=graph.device))
        drawn = (self.noise(graph, ids, seed, Stream.PRIOR, step) for step in range(draws))
        return torch.stack([ops.softmax(logits(a, b, ops.graph_scale(b, y, graph.ptr))) for y in drawn]).mean(0)

    @torch.no_grad()
    def trajectory(
        self, graph: GraphBatch, ids: Tensor, seed: int, times: Sequence[float], steps: int = 100
    ) -> list[Frame]:
        """What :meth:`sample` of the same arguments thinks of every atom at some times of its way.

        The probabilities are the posterior of the labels, those that the score at that time and place is made of.

        Args:
            times: when to look, as shares of the way from 0 (noise) to 1, each moved to the nearest of the steps.
        """
        logits = self.bind_logits(graph)
        wanted = [round(time * steps) for time in times]
        seen = {}

        def look(number: int, a: Tensor, b: Tensor, x: Tensor) -> None:
            if number in wanted:
                seen[number] = ops.softmax(logits(a, b, x))

        seen[steps] = ops.softmax(self._walk(graph, ids, seed, steps, look=look))
        return [Frame(time, seen[number]) for time, number in zip(times, wanted, strict=True)]

    def _walk(
        self,
        graph: GraphBatch,
        ids: Tensor,
        seed: int,
        steps: int,
        sampler: str = "reverse-diffusion",
        corrections: int = 0,
        snr: float = 0.16,
        look: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """[N, c] the posterior's logits at t_min; `look` sees every score's number, a, b and state."""
        self.diffusion.check_sampler(steps, sampler, corrections, others=("ode",))
        y = self.noise(graph, ids, seed, Stream.PRIOR)
        logits, (begin, end) = self.bind_logits(graph), self.ratios
        if sampler == "ode":
            y = odeint(self.bind_flow(graph), y, graph, begin, end, method="rk4", steps=steps)
        else:
            posterior, count = self.bind_score(graph), 0

            def score(t: Tensor, x: Tensor) -> Tensor:
                nonlocal count
                # All graphs are at one time. Of several numbers, torch's exp can round the last ones otherwise, and a
                # graph's bits would depend on its place.
                a, b = (level.expand(graph.num_graphs) for level in self.levels(t[:1]))
                if look is not None:
                    look(count, a, b, x)
                count += 1
                return posterior(a, b, x)

            x: Any = reverse_sde(
                score,
                y * self.sde.std(1.0),
                graph,
                self.sde,
                steps,
                t1=self.t_min,
                predictor=SAMPLERS[sampler],  # type: ignore[arg-type]
                corrections=corrections,
                snr=snr,
                seed=seed,
                graph_ids=ids,
            )
            y = x / self.sde.std(self.t_min)
        r = torch.full((graph.num_graphs,), end, dtype=y.dtype, device=y.device)
        return logits(r, torch.ones_like(r), y)
