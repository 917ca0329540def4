"""The graph NCSN: atoms on given bonds by the score of noised labels, climbed with ever less noise.

The state is x = x0 + sigma noise on a few noise levels sigma. The score of each is learnt by denoising, and a sample
walks Langevin's dynamics on one level after the other (Song and Ermon, NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.models.diffusion import CERTAIN
from graphgen.models.gaussian import Denoiser
from graphgen.models.probability_flow import ProbabilityFlowModel
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.trajectory import Frame
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.ops.noise import Stream
from graphgen.solvers import annealed_langevin

# Published: epsilon = 2e-5 on a last level of 0.01. Steps are measured in the square of their level, so what carries
# over to other levels is 0.2 sigma^2, and that a walk of 100 steps forgets 20 times where it started.
_STEP = 2e-5 / 0.01**2


def geometric_levels(count: int, largest: float, least: float) -> list[float]:
    """Noise levels in geometric progression, falling.

    Raises:
        GraphgenError: fewer than 2, or a largest one that is not above the least, or that not above 0.
    """
    if count < 2 or not 0 < least < largest:
        raise GraphgenError(f"levels ({count}) must be 2 or more and 0 < sigma_min ({least}) < sigma_max ({largest})")
    return [largest * (least / largest) ** (level / (count - 1)) for level in range(count)]


def step_size(epsilon: float | None, steps: int, least: float) -> float:
    """Of Langevin's steps on the least level; None: the published one.

    Raises:
        GraphgenError: no steps, or an epsilon that is not above 0.
    """
    if epsilon is None:
        epsilon = _STEP * least**2
    if steps < 1 or epsilon <= 0:
        raise GraphgenError(f"steps ({steps}) must be 1 or more and epsilon ({epsilon}) above 0")
    return epsilon


class GraphNCSN(ProbabilityFlowModel):
    """Atoms on given bonds by annealed Langevin dynamics.

    The published levels, ten from 1 down to 0.01, are for images with pixels in [0, 1], and their first does not hide
    what is in the image: it only lets the walk pass between images. Here the labels' points are sqrt(2) scale apart and
    the labelings of a molecule of n atoms up to sqrt(2 n) scale; for the walk to pass between all of them, and for each
    atom to start from nearly the law that the bonds alone give it, sigma_max must be about the latter (technique 1 of
    Song and Ermon, NeurIPS 2020). So points stay one-hot (scale 1, again numbers in [0, 1]) and the levels are four
    times as high, 4 to 0.04, in the published ratio: sqrt(2 n) is 4.2 for QM9's nine atoms; for the 38 of ZINC250k it
    is 8.7, hardly more than the two deviations to both sides below which a mixture of two normals has a single mode. At
    0.04 labels are 35 deviations apart.

    The likelihood is that of the probability flow from the law that sampling starts from: annealed Langevin dynamics
    has none of its own. Between the levels, on which alone it is trained, the field interpolates.

    Args:
        vocabulary: the atom types.
        field, hidden, layers, context_layers: of the :class:`~graphgen.fields.NeighbourhoodField`.
        scale: distance of the labels' points from the origin. Only its ratio to the noise matters.
        label_smoothing: moves the points, see :class:`~graphgen.models.GraphCNF`.
        levels: how many noise levels, in geometric progression.
        sigma_max, sigma_min: the first, where sampling starts, and the last, standard deviations in the units of scale.

    Attributes:
        sigmas: the levels, falling.

    Raises:
        GraphgenError: a setting out of range.
    """

    name = "graph-ncsn"

    def __init__(
        self,
        vocabulary: Vocabulary,
        field: str = "nn",
        hidden: int = 64,
        layers: int = 3,
        context_layers: int = 3,
        scale: float = 1.0,
        label_smoothing: float = 0.0,
        levels: int = 10,
        sigma_max: float = 4.0,
        sigma_min: float = 0.04,
    ) -> None:
        super().__init__(
            vocabulary,
            field=field,
            hidden=hidden,
            layers=layers,
            context_layers=context_layers,
            scale=scale,
            label_smoothing=label_smoothing,
            levels=levels,
            sigma_max=sigma_max,
            sigma_min=sigma_min,
        )
        self.sigmas = geometric_levels(levels, sigma_max, sigma_min)

    @property
    def ratios(self) -> tuple[float, float]:
        """1 / sigma on the first level and, of the likelihood, where labels are beyond doubt or on the last."""
        return 1 / self.sigmas[0], min(1 / self.sigmas[-1], CERTAIN / self.spread)

    @property
    def start(self) -> float:
        """The middle of the labels' points, in units of the first level's noise."""
        return (self.spread / len(self.vocabulary) + self.shift) / self.sigmas[0]

    def loss(self, batch: MoleculeBatch, seed: int, step: int = 0) -> Tensor:
        """Denoising score matching per atom at one random level per molecule: ``sigma^2 |s + z / sigma|^2 / 2``.

        Its minimum is the score of the noised data, since that of a normal is -z / sigma (Vincent 2011). The weight
        makes all levels of one order (Song and Ermon, NeurIPS 2019, equations 5 and 6).

        Args:
            seed, step: of the noise; the same pair gives the same loss.
        """
        graph = batch.graph
        level = (self.times(batch, seed, step) * len(self.sigmas)).long()
        sigma = torch.tensor(self.sigmas, dtype=self.dtype, device=graph.device)[level]
        z = self.noise(graph, batch.ids, seed, Stream.PATH, step)
        x = self.points(batch.atoms) + ops.graph_scale(sigma, z, graph.ptr)
        score = self.bind_score(graph)(torch.ones_like(sigma), sigma, x)
        miss = ops.graph_scale(sigma, score, graph.ptr) + z
        return 0.5 * (miss * miss).sum() / batch.atoms.numel()

    @torch.no_grad()
    def sample(
        self,
        graph: GraphBatch,
        ids: Tensor,
        seed: int,
        steps: int = 100,
        epsilon: float | None = None,
        denoise: bool = True,
        temperature: float = 0.0,
    ) -> Tensor:
        """Atoms for given bonds by annealed Langevin dynamics, from the middle of the labels' points plus sigma_max z.

        Args:
            graph: the bonds; ids: [B] what identifies each molecule to the noise source.
            steps: on each level, one field evaluation each. Langevin's steps have an error of the order of their size,
                and the published ones are large: with the exact score, labels of probability 0.5 and 0.1 come out as
                0.475 and 0.112; with half the epsilon and twice the steps as 0.491 and 0.101.
            epsilon: size e of a step ``x + e s + sqrt(2 e) z`` on the last level, on others by sigma^2 more. None: that
                of the published code, 2e-5 for a last level of 0.01, times (sigma_min / 0.01)^2. (The paper's
                algorithm 1 halves e.)
            denoise: end at E[x0 | x] of the last level, one evaluation more (Song and Ermon, NeurIPS 2020); the
                published sampler does not.
            temperature: of the labels, which are drawn from ``softmax(logits / temperature)`` where the walk ends, or
                are the largest coordinate at 0. On the last level there is next to no doubt.

        Returns:
            [N] int64 indices into the vocabulary: the same bits for any batching of the same (seed, ids).

        Raises:
            GraphgenError: steps below 1, an epsilon that is not above 0, or a walk that diverges.
        """
        end = self._walk(self._score(graph), graph, ids, seed, steps, epsilon, denoise)
        if temperature == 0:
            return end.argmax(1)
        logits = self._on_levels(self.bind_logits(graph))
        return self.draw_labels(logits(self._level(-1, graph), end), graph, ids, seed, temperature)

    @torch.no_grad()
    def trajectory(
        self, graph: GraphBatch, ids: Tensor, seed: int, times: Sequence[float], steps: int = 100
    ) -> list[Frame]:
        """What :meth:`sample` of the same arguments thinks of every atom at some times of its way.

        Args:
            times: when to look, shares of all steps from 0 to 1. The probabilities are the posterior of the labels
                that the score of the nearest step is made of; at 1, that of the final denoising.
        """
        logits, score = self._on_levels(self.bind_logits(graph)), self._score(graph)
        total = len(self.sigmas) * steps
        wanted = {round(time * total) for time in times}
        seen: dict[int, Tensor] = {}
        number = 0

        def looking(sigma: Tensor, x: Tensor) -> Tensor:
            nonlocal number
            if number in wanted:
                seen[number] = ops.softmax(logits(sigma, x))
            number += 1
            return score(sigma, x)

        self._walk(looking, graph, ids, seed, steps, None, True)
        return [Frame(time, seen[round(time * total)]) for time in times]

    @torch.no_grad()
    def marginals(self, graph: GraphBatch, ids: Tensor, seed: int, draws: int = 4) -> Tensor:
        """[N, c] probability of every label of each atom, given the bonds alone.

        The posterior on the first level, where labels are all but lost, at the points that sampling starts from.

        Args:
            draws: of the noise, to average what is left of its influence.
        """
        logits, sigma = self._on_levels(self.bind_logits(graph)), self._level(0, graph)
        starts = (self._start(graph, ids, seed, step) for step in range(draws))
        return torch.stack([ops.softmax(logits(sigma, x)) for x in starts]).mean(0)

    # ---- the walk ---------------------------------------------------------------------------------------------------

    def _walk(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        graph: GraphBatch,
        ids: Tensor,
        seed: int,
        steps: int,
        epsilon: float | None,
        denoise: bool,
    ) -> Tensor:
        epsilon = step_size(epsilon, steps, self.sigmas[-1])
        x = self._start(graph, ids, seed)
        end = annealed_langevin(score, x, graph, self.sigmas, epsilon, steps, denoise=denoise, seed=seed, graph_ids=ids)
        assert isinstance(end, Tensor)
        return end

    def _start(self, graph: GraphBatch, ids: Tensor, seed: int, step: int = 0) -> Tensor:
        """[N, c]"""
        return (self.noise(graph, ids, seed, Stream.PRIOR, step) + self.start) * self.sigmas[0]

    def _level(self, level: int, graph: GraphBatch) -> Tensor:
        """[B]"""
        return torch.full((graph.num_graphs,), self.sigmas[level], dtype=self.dtype, device=graph.device)

    def _score(self, graph: GraphBatch) -> Callable[[Tensor, Tensor], Tensor]:
        return self._on_levels(self.bind_score(graph))

    @staticmethod
    def _on_levels(denoiser: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
        """``(sigma [B], x [N, c]) -> [N, c]``."""
        return lambda sigma, x: denoiser(torch.ones_like(sigma), sigma, x)
