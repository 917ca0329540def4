"""The graph CNF (modular flow): an ODE that carries noise to the atoms of a molecule whose bonds are given.

The state holds c numbers per atom, one per atom type. A label k is the point ``scale * e_k`` blurred by a unit normal;
the straight path from noise to it is ``x_t = t * scale * e_k + noise``, whose velocity given the label is
``scale * e_k``. The flow's velocity is the mean of that over what the label may be,

    v(t, x) = scale * softmax(t * scale * x + field(t, x, bonds)),

since Bayes' rule for unit normals gives every label the logit ``t * scale * x_k`` plus whatever the neighbourhood
says, which is what the field learns. With the exact posterior this velocity transports the prior N(0, I) to the blurred
data exactly (flow matching: Lipman et al. 2023, theorem 1; posterior form: Eijkelboom et al. 2024). However it was
trained, it is an ODE field, and log_prob is that of the ODE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.fields import NeighbourhoodField
from graphgen.graph import GraphBatch
from graphgen.models import checkpoint
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import BOND_TYPES, Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers import odeint

OBJECTIVES = ("flow-matching", "likelihood")

# A point outside its label's cell is drawn again; at the default scale that happens once in a million atoms.
_REDRAWS = 16


class LogProb(NamedTuple):
    """Per graph: a lower bound on the log-probability of the labels (nats), its standard error, and atoms counted."""

    value: Tensor
    stderr: Tensor
    atoms: Tensor


class GraphCNF(nn.Module):
    """Atoms on given bonds by a continuous normalizing flow.

    Args:
        vocabulary: the atom types.
        field: what an atom learns of its neighbours, "nn", "rbf" or "grand": see
            :data:`graphgen.fields.MESSAGES`.
        hidden, layers, context_layers: size of the :class:`~graphgen.fields.NeighbourhoodField`.
        scale: distance of the labels' points from the origin, in units of the noise.
        label_smoothing: s moves the point of label k from ``scale e_k`` to ``scale ((1 - s) e_k + s / c)``, as the
            modular flow does; what stands above about e_k holds of these points.
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
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1 or scale <= 0:
            raise GraphgenError(f"label_smoothing ({label_smoothing}) must be in [0, 1) and scale ({scale}) above 0")
        self.vocabulary = vocabulary
        self.settings = {
            "field": field,
            "hidden": hidden,
            "layers": layers,
            "context_layers": context_layers,
            "scale": scale,
            "label_smoothing": label_smoothing,
        }
        self.spread = scale * (1 - label_smoothing)
        self.shift = scale * label_smoothing / len(vocabulary)
        self.field = NeighbourhoodField(len(vocabulary), len(BOND_TYPES), hidden, layers, context_layers, field)

    # ---- the flow ---------------------------------------------------------------------------------------------------

    def bind_logits(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        """``(t [B], x [N, c]) -> [N, c]``: the log-probabilities (up to a constant) of every atom's label."""
        field = self.field.bind(graph)

        def logits(t: Tensor, x: Tensor) -> Tensor:
            sharpness = ops.segment_broadcast((t * self.spread).unsqueeze(1), graph.ptr, graph.num_nodes)
            return sharpness * x + field(t, x)

        return logits

    def bind_velocity(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        """``(t [B], x [N, c]) -> dx/dt [N, c]``."""
        logits = self.bind_logits(graph)
        return lambda t, x: ops.softmax(logits(t, x)) * self.spread + self.shift

    def transport(self, x: Tensor, graph: GraphBatch, t0: float = 0.0, t1: float = 1.0, **solver: Any) -> Tensor:
        """Carry points along the flow, from noise (t = 0) to data (t = 1) or, with t0 > t1, back.

        Args:
            x: [N, c].
            solver: arguments of :func:`graphgen.solvers.odeint`.
        """
        return odeint(self.bind_velocity(graph), x, graph, t0, t1, **solver)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0, objective: str = "flow-matching") -> Tensor:
        """Nats per atom, to be minimised.

        Args:
            seed, step: of the noise; the same pair gives the same loss.
            objective: "flow-matching" (cross-entropy of the labels at a random point of the path, no simulation) or
                "likelihood" (minus log_prob's bound, through an 8-step Runge-Kutta solve with one Hutchinson probe).

        Raises:
            ValueError: an unknown objective.
        """
        if objective == "likelihood":
            bound = self.log_prob(batch, seed, step, method="rk4", steps=8)
            return -bound.value.sum() / batch.atoms.numel()
        if objective != "flow-matching":
            raise ValueError(f"loss: objective must be one of {OBJECTIVES}, got {objective!r}")
        graph = batch.graph
        t = self._times(batch, seed, step)
        noise = self._noise(batch.graph, batch.ids, seed, Stream.PATH, step)
        x = self._points(batch.atoms) * t[graph.batch].unsqueeze(1) + noise
        return nn.functional.cross_entropy(self.bind_logits(graph)(t, x), batch.atoms)

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
        values = []
        for sample in range(samples):
            z, log_q = self.dequantise(batch, seed, step * samples + sample)
            values.append(self.log_density(z, batch, seed + sample, probes, trace, **solver) - log_q)
        stacked = torch.stack(values)
        error = stacked.std(0) / samples**0.5 if samples > 1 else torch.full_like(stacked[0], torch.nan)
        return LogProb(stacked.mean(0), error.detach(), batch.graph.ptr.diff())

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
        graph = batch.graph
        velocity = self.bind_velocity(graph)

        def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
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
            return value, divergence

        start = (z, z.new_zeros(graph.num_graphs))
        x, minus_integral = odeint(augmented, start, graph, 1.0, 0.0, **solver)
        return _log_normal(x, graph) + minus_integral

    def dequantise(self, batch: MoleculeBatch, seed: int, step: int = 0) -> tuple[Tensor, Tensor]:
        """Points z [N, c] in the labels' argmax cells, and log q(z | labels) [B]."""
        centre = self._points(batch.atoms)
        z, outside = centre, torch.ones_like(batch.atoms, dtype=torch.bool)
        for attempt in range(_REDRAWS):
            noise = self._noise(batch.graph, batch.ids, seed, Stream.DEQUANTISE, step * _REDRAWS + attempt)
            z = torch.where(outside.unsqueeze(1), centre + noise, z)
            outside = z.argmax(1) != batch.atoms
            if not bool(outside.any()):
                break
        else:
            raise GraphgenError(
                f"dequantise: scale {self.settings['scale']} leaves almost nothing of a label's cell; raise it"
            )
        cells = batch.graph.ptr.diff().to(z.dtype) * self._log_cell()
        return z, _log_normal(z - centre, batch.graph) - cells

    def _log_cell(self) -> float:
        """log of the share of a label's blurred point that lies in its own cell, by quadrature."""
        u = torch.linspace(-12, 12, 4801, dtype=torch.float64)
        density = torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
        others = torch.special.ndtr(u + self.spread) ** (len(self.vocabulary) - 1)
        return math.log(float(torch.trapezoid(density * others, u)))

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
        noise = self._noise(graph, ids, seed, Stream.PRIOR, 0)
        end = self.transport(noise, graph, method="rk4", steps=steps)
        if temperature == 0:
            return end.argmax(1)
        logits = self.bind_logits(graph)(end.new_ones(graph.num_graphs), end) / temperature
        below = ops.softmax(logits).cumsum(1)[:, :-1]
        uniform = ops.uniform(graph.ptr, 1, seed, Stream.LABEL, 0, ids, logits.dtype)
        return (uniform >= below).sum(1)

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
        x = self._noise(graph, ids, seed, Stream.PRIOR, 0)
        frames, now = [], 0.0
        for time in times:
            if time > now:
                part = max(1, round(steps * (time - now)))
                x, now = self.transport(x, graph, now, time, method="rk4", steps=part), time
            t = torch.full((graph.num_graphs,), time, dtype=x.dtype, device=x.device)
            frames.append(Frame(time, ops.softmax(logits(t, x))))
        return frames

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _points(self, atoms: Tensor) -> Tensor:
        weight = self.field.out.weight
        return nn.functional.one_hot(atoms, len(self.vocabulary)).to(weight.dtype) * self.spread + self.shift

    def _noise(self, graph: GraphBatch, ids: Tensor, seed: int, stream: Stream, step: int) -> Tensor:
        dtype = self.field.out.weight.dtype
        return ops.normal(graph.ptr, len(self.vocabulary), seed, stream, step, ids, dtype)

    def _times(self, batch: MoleculeBatch, seed: int, step: int) -> Tensor:
        one_each = torch.arange(batch.graph.num_graphs + 1, device=batch.graph.device)
        dtype = self.field.out.weight.dtype
        return ops.uniform(one_each, 1, seed, Stream.TIME, step, batch.ids, dtype).squeeze(1)

    # ---- disk -------------------------------------------------------------------------------------------------------

    def save(self, folder: Any) -> None:
        """Write the model to a folder as safetensors and JSON."""
        description = {"model": self.name, "settings": self.settings, "vocabulary": self.vocabulary.to_json()}
        checkpoint.write(folder, description, self.state_dict())

    @classmethod
    def restore(cls, description: Mapping[str, Any], weights: Mapping[str, Tensor], where: str) -> GraphCNF:
        """The model of a description and weights read from `where`."""
        try:
            model = cls(Vocabulary.from_json(description["vocabulary"]), **description["settings"])
            model.load_state_dict(weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise GraphgenError(
                f"{where}: the model's description and weights do not fit together ({reason}); train or copy it again"
            ) from None
        return model.eval()


def _log_normal(x: Tensor, graph: GraphBatch) -> Tensor:
    """[B] log-density of a standard normal over each graph's nodes."""
    square = x * x
    per_node = ops.linear(square, square.new_ones((square.shape[1], 1)))
    constant = 0.5 * math.log(2 * math.pi) * x.shape[1]
    return ops.segment_reduce(per_node * -0.5 - constant, graph.ptr).squeeze(1)
