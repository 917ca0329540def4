"""The graph CNF (modular flow): an ODE that carries noise to the atoms of a molecule whose bonds are given.

The state holds c numbers per atom, one per atom type. A label k is the point ``scale * e_k`` blurred by a unit normal;
the straight path from noise to it is ``x_t = t * scale * e_k + noise``, whose velocity given the label is
``scale * e_k``. The flow's velocity is the mean of that over what the label may be,

    v(t, x) = scale * softmax(t * scale * x + field(t, x, bonds)),

since Bayes' rule for unit normals gives every label the logit ``t * scale * x_k`` plus whatever the neighbourhood
says, which is what the field learns. With the exact posterior this velocity transports the prior N(0, I) to the blurred
data exactly (flow matching: Lipman et al. 2023, theorem 1; posterior form: Eijkelboom et al. 2024). However it was
trained, it is an ODE field, and log_prob is that of the ODE. Trained by likelihood, the path is the flow's own, and so
may its end be: a trained end time T is how far the field is followed, dx/dt = T v(T t, x) for t from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.models.fixed_bonds import FixedBondModel, log_normal
from graphgen.models.log_prob import LogProb
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers import odeint

OBJECTIVES = ("flow-matching", "likelihood")


class _Back(NamedTuple):
    """Points carried back to noise: [B] their log-density, [B] the kinetic energy of their paths (0 if not asked)."""

    log_density: Tensor
    energy: Tensor
    evaluations: int


class GraphCNF(FixedBondModel):
    """Atoms on given bonds by a continuous normalizing flow.

    Args:
        vocabulary: the atom types.
        field: what an atom learns of its neighbours, "nn", "rbf" or "grand": see
            :data:`graphgen.fields.MESSAGES`.
        hidden, layers, context_layers: size of the :class:`~graphgen.fields.NeighbourhoodField`.
        scale: distance of the labels' points from the origin, in units of the noise.
        label_smoothing: s moves the point of label k from ``scale e_k`` to ``scale ((1 - s) e_k + s / c)``, as the
            modular flow does; what stands above about e_k holds of these points.
        objective: what :meth:`loss` is: "flow-matching" (cross-entropy of the labels at a random point of the path, no
            simulation) or "likelihood" (minus log_prob's bound, through an 8-step Runge-Kutta solve with one
            Hutchinson probe).
        kinetic: weight, in the likelihood objective, of the path's kinetic energy per atom, half the squared speed
            integrated over t (Finlay et al. 2020, equation 4): straighter paths, fewer steps.
        trained_end_time: let the likelihood objective also learn T.

    Raises:
        GraphgenError: a setting out of range, or one that flow matching, whose path is fixed, has no use for.
    """

    name = "graph-cnf"

    def __init__(
        self,
        vocabulary: Vocabulary,
        field: str = "nn",
        hidden: int = 64,
        layers: int = 3,
        context_layers: int = 3,
        scale: float = 8.0,
        label_smoothing: float = 0.0,
        objective: str = "flow-matching",
        kinetic: float = 0.0,
        trained_end_time: bool = False,
    ) -> None:
        super().__init__(
            vocabulary,
            field=field,
            hidden=hidden,
            layers=layers,
            context_layers=context_layers,
            scale=scale,
            label_smoothing=label_smoothing,
            objective=objective,
            kinetic=kinetic,
            trained_end_time=trained_end_time,
        )
        if objective not in OBJECTIVES:
            raise GraphgenError(f"objective {objective!r}: choose one of {', '.join(OBJECTIVES)}")
        if kinetic < 0:
            raise GraphgenError(f"kinetic must be 0 or more, not {kinetic}")
        if objective == "flow-matching" and (kinetic or trained_end_time):
            raise GraphgenError(
                "kinetic and trained_end_time shape the flow's path, which flow matching fixes; "
                "leave them out or choose the objective likelihood"
            )
        self.log_end_time = nn.Parameter(torch.zeros(())) if trained_end_time else None

    @property
    def has_marginals(self) -> bool:
        """Whether it was trained by flow matching."""
        return self.settings["objective"] == "flow-matching"

    # ---- the flow ---------------------------------------------------------------------------------------------------

    def bind_logits(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        """``(t [B], x [N, c]) -> [N, c]``: the log-probabilities (up to a constant) of every atom's label."""
        field = self.field.bind(graph)

        def logits(t: Tensor, x: Tensor) -> Tensor:
            if self.log_end_time is not None:
                t = t * self.log_end_time.exp()
            sharpness = ops.segment_broadcast((t * self.spread).unsqueeze(1), graph.ptr, graph.num_nodes)
            return sharpness * x + field(t, x)

        return logits

    def bind_velocity(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        """``(t [B], x [N, c]) -> dx/dt [N, c]``."""
        logits = self.bind_logits(graph)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            v = ops.softmax(logits(t, x)) * self.spread + self.shift
            return v if self.log_end_time is None else v * self.log_end_time.exp()

        return velocity

    def transport(self, x: Tensor, graph: GraphBatch, t0: float = 0.0, t1: float = 1.0, **solver: Any) -> Tensor:
        """Carry points along the flow, from noise (t = 0) to data (t = 1) or, with t0 > t1, back.

        Args:
            x: [N, c].
            solver: arguments of :func:`graphgen.solvers.odeint`.
        """
        return odeint(self.bind_velocity(graph), x, graph, t0, t1, **solver)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """The objective, nats per atom (with the kinetic term, if asked for), to be minimised.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        if self.settings["objective"] == "likelihood":
            z, log_q = self.dequantise(batch, seed, step)
            back = self._carry_back(z, batch, seed, 1, "hutchinson", method="rk4", steps=8)
            bound = (back.log_density - log_q).sum() - self.settings["kinetic"] * back.energy.sum()
            return -bound / batch.atoms.numel()
        t = self.times(batch, seed, step)
        noise = self.noise(batch.graph, batch.ids, seed, Stream.PATH, step)
        x = self.points(batch.atoms) * t[batch.graph.batch].unsqueeze(1) + noise
        return nn.functional.cross_entropy(self.bind_logits(batch.graph)(t, x), batch.atoms)

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
        """A lower bound on log P(labels | bonds) of every molecule, in nats.

        A label's point is drawn in its argmax cell from q(z | label) = N(scale e_k, I) restricted to the cell, whose
        normaliser is known; then E_q[log p(z) - log q(z | label)] <= log of the probability that a sample's argmax
        is these labels (Ho et al. 2019, variational dequantisation). It compares with the cross-entropy of a table.

        Args:
            seed, step: of the noise.
            samples: draws of z to average over.
            probes: Hutchinson probes per draw, fixed over the solve.
            trace: "hutchinson" or "exact".
            solver: arguments of :func:`graphgen.solvers.odeint`.

        Returns:
            Value and standard error over the draws (NaN for one) per graph. Differentiable.
        """
        values, evaluations = [], 0
        for sample in range(samples):
            z, log_q = self.dequantise(batch, seed, step * samples + sample)
            back = self._carry_back(z, batch, seed + sample, probes, trace, **solver)
            values.append(back.log_density - log_q)
            evaluations += back.evaluations
        return LogProb.of_draws(values, batch.graph, evaluations)

    def log_density(
        self,
        z: Tensor,
        batch: MoleculeBatch,
        seed: int = 0,
        probes: int = 1,
        trace: str = "hutchinson",
        **solver: Any,
    ) -> Tensor:
        """[B] log-density of points z [N, c] under the flow: log N(x(0)) minus the integral of the divergence."""
        return self._carry_back(z, batch, seed, probes, trace, **solver).log_density

    def _carry_back(self, z: Tensor, batch: MoleculeBatch, seed: int, probes: int, trace: str, **solver: Any) -> _Back:
        graph = batch.graph
        velocity = self.bind_velocity(graph)
        with_energy = self.settings["kinetic"] > 0
        evaluations = 0

        def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            nonlocal evaluations
            evaluations += 1
            value, divergence, _ = ops.divergence(
                lambda x: velocity(t, x),
                state[0],
                graph,
                trace,
                probes,
                seed=seed,
                graph_ids=batch.ids,
                reach=self.field.reach,
            )
            energy = (0.5 * ops.graph_dot(value, value, graph.ptr),) if with_energy else ()
            return value, divergence, *energy

        nothing = z.new_zeros(graph.num_graphs)
        start = (z, nothing, nothing) if with_energy else (z, nothing)
        x, minus_integral, *minus_energy = odeint(augmented, start, graph, 1.0, 0.0, **solver)
        energy = -minus_energy[0] if with_energy else nothing
        return _Back(log_normal(x, graph) + minus_integral, energy, evaluations)

    # ---- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, graph: GraphBatch, ids: Tensor, seed: int, steps: int = 20, temperature: float = 0.0) -> Tensor:
        """Atoms for given bonds: carry noise along the flow, and label where it ends.

        Args:
            graph: the bonds; ids: [B] what identifies each molecule to the noise source.
            steps: of the classical Runge-Kutta method, four field evaluations each.
            temperature: 0 takes the largest coordinate. Else labels are drawn from the posterior of the end,
                ``softmax(logits / temperature)``; at 1 they are almost always the same, since the flow ends at points
                that are 8 noises apart.

        Returns:
            [N] int64 indices into the vocabulary: the same bits for any batching of the same (seed, ids).
        """
        noise = self.noise(graph, ids, seed, Stream.PRIOR)
        end = self.transport(noise, graph, method="rk4", steps=steps)
        if temperature == 0:
            return end.argmax(1)
        logits = self.bind_logits(graph)(end.new_ones(graph.num_graphs), end)
        return self.draw_labels(logits, graph, ids, seed, temperature)

    @torch.no_grad()
    def marginals(self, graph: GraphBatch, ids: Tensor, seed: int, draws: int = 4) -> Tensor:
        """[N, c] probability of every label of each atom, given the bonds alone.

        At t = 0 the state is noise and tells nothing, so what flow matching learns there is the law given the bonds.

        Args:
            draws: of the noise, to average what the field makes of it.

        Raises:
            GraphgenError: trained by likelihood, which leaves the field at t = 0 another meaning.
        """
        if not self.has_marginals:
            raise GraphgenError("marginals are read off the field at t = 0, which only flow matching teaches them")
        logits = self.bind_logits(graph)
        start = torch.zeros(graph.num_graphs, dtype=self.dtype, device=graph.device)
        drawn = (self.noise(graph, ids, seed, Stream.PRIOR, step) for step in range(draws))
        return torch.stack([ops.softmax(logits(start, x)) for x in drawn]).mean(0)

    @torch.no_grad()
    def trajectory(
        self, graph: GraphBatch, ids: Tensor, seed: int, times: Sequence[float], steps: int = 20
    ) -> list[Frame]:
        """What :meth:`sample` of the same arguments thinks of every atom at some times of its way.

        The probabilities are the posterior of the labels, those that the velocity at that time and place is made of.

        Args:
            times: when to look, in order, from 0 to 1. Where they divide the steps evenly, the steps are sample's own.
        """
        logits = self.bind_logits(graph)
        x = self.noise(graph, ids, seed, Stream.PRIOR)
        frames, now = [], 0.0
        for time in times:
            if time > now:
                part = max(1, round(steps * (time - now)))
                x, now = self.transport(x, graph, now, time, method="rk4", steps=part), time
            t = torch.full((graph.num_graphs,), time, dtype=x.dtype, device=x.device)
            frames.append(Frame(time, ops.softmax(logits(t, x))))
        return frames
