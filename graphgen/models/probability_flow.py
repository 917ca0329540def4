"""The ODE with the marginals of a Gaussian process, and the likelihood it gives.

In units of the noise, y = x / b, and by the clock r = a / b it is ``dy/dr = E[x0 | y]`` whatever the process: DDIM's
ODE (Song, Meng and Ermon, ICLR 2021, equation 14) with data and noise in each other's place. This is smooth where drift
and diffusion are steep in time, and a step's length is the signal it adds, so it is integrated in equal steps of r, and
no process needs more of them than another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from graphgen import ops
from graphgen.graph import GraphBatch
from graphgen.models.fixed_bonds import log_normal
from graphgen.models.gaussian import GaussianModel
from graphgen.models.log_prob import LogProb
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.solvers import odeint


class ProbabilityFlowModel(GaussianModel, ABC):
    """A Gaussian model whose likelihood is that of its probability flow; arguments as :class:`FixedBondModel`'s."""

    @property
    @abstractmethod
    def ratios(self) -> tuple[float, float]:
        """r = a / b where the flow starts, from noise, and where it ends, among the labels."""

    @property
    def start(self) -> float:
        """What the flow's noise is added to, in units of the noise; the same for every number of the state."""
        return 0.0

    def bind_flow(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        """``(r [B], y [N, c]) -> dy/dr [N, c]``."""
        mean = self.bind_mean(graph)
        return lambda r, y: mean(r, r.new_ones(r.shape), y)

    def log_prob(
        self,
        batch: MoleculeBatch,
        seed: int = 0,
        step: int = 0,
        samples: int = 1,
        probes: int = 1,
        trace: str = "hutchinson",
        **solver: Any,
    ) -> LogProb:
        """A lower bound on log P(labels | bonds) of every molecule, in nats, by the probability flow.

        As :meth:`GraphCNF.log_prob`: a point is drawn in the label's argmax cell, from what noise makes of the label
        where the flow ends, and E_q[log p(z) - log q(z | label)] bounds the probability that the flow's sample has
        these labels in its argmax. Hardly any noised point leaves its cell there, so with the exact score only that is
        lost by which the flow's start differs from the noised data.

        Args:
            seed, step: of the noise.
            samples: draws of z to average over.
            probes: Hutchinson probes per draw, fixed over the solve.
            trace: "hutchinson" or "exact".
            solver: arguments of :func:`graphgen.solvers.odeint`; its steps are equal in r.

        Returns:
            Value and standard error over the draws (NaN for one) per graph. Differentiable.

        Source: Song et al., ICLR 2021, appendix D.2; Ho et al. 2019 (variational dequantisation).
        """
        values, evaluations = [], 0
        for sample in range(samples):
            y, log_q = self.dequantise(batch, seed, step * samples + sample, signal=self.ratios[1])
            log_p, used = self.carry_back(y, batch, seed + sample, probes, trace, **solver)
            values.append(log_p - log_q)
            evaluations += used
        return LogProb.of_draws(values, batch.graph, evaluations)

    def carry_back(
        self, y: Tensor, batch: MoleculeBatch, seed: int, probes: int, trace: str, **solver: Any
    ) -> tuple[Tensor, int]:
        """Of states y [N, c] where the flow ends: their log-density [B], and how often the field was evaluated."""
        graph, reach = batch.graph, self.field.reach
        flow = self.bind_flow(graph)
        evaluations = 0

        def augmented(r: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            nonlocal evaluations
            evaluations += 1
            value, divergence, _ = ops.divergence(
                lambda y: flow(r, y), state[0], graph, trace, probes, seed=seed, graph_ids=batch.ids, reach=reach
            )
            return value, divergence

        noisy, clear = self.ratios
        y, minus_integral = odeint(augmented, (y, y.new_zeros(graph.num_graphs)), graph, clear, noisy, **solver)
        return log_normal(y - self.start, graph) + minus_integral, evaluations
