"""The DDPM of whole molecules: a Markov chain that noises atoms and bonds together, run backwards."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from graphgen.models.graph_ddpm import noise_share, signal_left, visited
from graphgen.models.joint import JointGaussian, Parts, Posterior, Walk, scaled
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.solvers import denoising_chain


class JointDDPM(JointGaussian):
    """Whole molecules by denoising diffusion.

    Args:
        vocabulary: the atom types.
        hidden, pair_hidden, layers, heads: size of the :class:`~graphgen.fields.PairField`.
        scale: distance of the labels' points from the origin, in units of the prior's noise. It says where on the chain
            labels are decided, see :class:`~graphgen.models.GraphDDPM`: at 2, in the middle of either schedule.
        chain: T, its number of steps.
        schedule: of beta, "linear" or "cosine".

    Attributes:
        alpha_bars: abar_0 = 1, ..., abar_T.

    Raises:
        GraphgenError: a setting out of range.
    """

    name = "graph-ddpm"

    def __init__(
        self,
        vocabulary: Vocabulary,
        hidden: int = 96,
        pair_hidden: int = 48,
        layers: int = 5,
        heads: int = 4,
        scale: float = 2.0,
        chain: int = 1000,
        schedule: str = "linear",
        structure: str = "joint",
    ) -> None:
        super().__init__(
            vocabulary,
            hidden=hidden,
            pair_hidden=pair_hidden,
            layers=layers,
            heads=heads,
            scale=scale,
            chain=chain,
            schedule=schedule,
            structure=structure,
        )
        self.alpha_bars = signal_left(schedule, chain)

    @property
    def first_signal(self) -> float:
        return self._signal(self.settings["chain"])

    def _signal(self, t: int) -> float:
        """After t > 0 steps of noise."""
        return self.scale * math.sqrt(self.alpha_bars[t] / (1 - self.alpha_bars[t]))

    def signal(self, u: Tensor) -> Tensor:
        """After a random number of steps, 1 to T."""
        signals = torch.tensor([self._signal(t) for t in range(1, len(self.alpha_bars))], dtype=self.dtype)
        return signals.to(u.device)[(u * len(signals)).long()]

    def sample(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None = None,
        steps: int | None = None,
        sampler: str = "ancestral",
        eta: float = 0.0,
    ) -> CompleteGraphs:
        """Whole molecules: the chain backwards, from noise to the likeliest labels of its last step.

        Args:
            ids: [B] what identifies each molecule to the noise source.
            sizes: [B] int64 numbers of atoms; None draws them as the training data has them.
            steps: how many of the chain's, one field evaluation each; fewer are spread evenly. None: all.
            sampler: "ancestral" or "ddim"; eta: of "ddim". Both as :meth:`GraphDDPM.sample` has them.

        Returns:
            The same molecule of the same (seed, id) in any batch, as far as the field's rounding allows, see
            :class:`~graphgen.fields.PairField`.

        Raises:
            GraphgenError: an unknown sampler, or steps or eta out of range.
        """
        return self._carry(ids, seed, sizes, self.plan(ids, seed, steps, sampler, eta))

    def plan(
        self, ids: Tensor, seed: int, steps: int | None = None, sampler: str = "ancestral", eta: float = 0.0
    ) -> Walk:
        chain = visited(self.settings["chain"], steps)[:-1]  # the last step is one to labels
        share = noise_share(sampler, eta)
        alpha_bars = [self.alpha_bars[t] for t in chain]
        deviations = [math.sqrt(1 - alpha_bar) for alpha_bar in alpha_bars]

        def walk(posterior: Posterior, start: Parts, ptr: Tensor) -> tuple[float, Parts]:
            def mean(k: int, x: Parts) -> Parts:
                signal = torch.full((1,), self._signal(chain[k]), dtype=self.dtype, device=ptr.device)
                return scaled(posterior(signal, scaled(x, 1 / deviations[k])), self.scale)

            x: Any = denoising_chain(
                mean,
                scaled(start, deviations[0]),
                ptr,
                alpha_bars,
                predicts="data",
                eta=share,
                seed=seed,
                graph_ids=ids,
            )
            return self._signal(chain[-1]), scaled(x, 1 / deviations[-1])

        return walk
