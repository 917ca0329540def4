"""The SDE of whole molecules: atoms and bonds noised together and denoised by both their scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from graphgen.models.diffusion import SAMPLERS, Diffusion
from graphgen.models.joint import JointGaussian, Parts, Posterior, Walk, scaled, score
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.vocabulary import Vocabulary
from graphgen.solvers import reverse_sde


class JointSDE(JointGaussian):
    """Whole molecules by a diffusion run backwards.

    GDSS's settings leave signal at t = 1 (three quarters for its VP on atoms) and yet start from noise alone. Here the
    diffusion is :class:`~graphgen.models.GraphSDE`'s, which ends where labels are lost, and samples start from noise
    around what is left of the data's mean.

    Args:
        vocabulary: the atom types.
        hidden, pair_hidden, layers, heads: size of the :class:`~graphgen.fields.PairField`.
        scale: distance of the labels' points from the origin, as :class:`~graphgen.models.GraphSDE` has it. At 4 the
            signal is 1 to 4, where lone labels are decided, at t = 0.52 to 0.26 of VP; those of a molecule tell of
            each other, so they are decided a little earlier on the way back, still in its middle.
        sde: "vp" or "subvp", of beta from 0.1 to 20, or "ve"; the same for atoms and pairs, whose points are as far
            apart.

    Raises:
        GraphgenError: a setting out of range, or a scale that leaves signal at t = 1.
    """

    name = "graph-sde"

    def __init__(
        self,
        vocabulary: Vocabulary,
        hidden: int = 96,
        pair_hidden: int = 48,
        layers: int = 5,
        heads: int = 4,
        scale: float = 4.0,
        sde: str = "vp",
        structure: str = "joint",
    ) -> None:
        super().__init__(
            vocabulary,
            hidden=hidden,
            pair_hidden=pair_hidden,
            layers=layers,
            heads=heads,
            scale=scale,
            sde=sde,
            structure=structure,
        )
        self.diffusion = Diffusion(sde, scale, scale)

    @property
    def first_signal(self) -> float:
        return self.scale * self.diffusion.ratio(1.0)

    def signal(self, u: Tensor) -> Tensor:
        """At t uniform from t_min to 1."""
        begin = self.diffusion.t_min
        a, b = self.diffusion.levels(begin + (1 - begin) * u, self.dtype)
        return self.scale * a / b

    def sample(
        self,
        ids: Tensor,
        seed: int,
        sizes: Tensor | None = None,
        steps: int = 100,
        sampler: str = "reverse-diffusion",
        corrections: int = 0,
        snr: float = 0.16,
    ) -> CompleteGraphs:
        """Whole molecules: carry noise from t = 1 to t_min, and label by the posterior there.

        Args:
            ids: [B] what identifies each molecule to the noise source.
            sizes: [B] int64 numbers of atoms; None draws them as the training data has them.
            steps: equal ones in t, a field evaluation each.
            sampler: a predictor, "euler", "reverse-diffusion" or "ancestral" (Song et al., ICLR 2021).
            corrections: Langevin steps before each step, of atoms and pairs from the same state, a field evaluation
                each (GDSS, algorithm 1).
            snr: their ratio of signal to noise, by each molecule's own norms of either part.

        Returns:
            The same molecule of the same (seed, id) in any batch, as far as the field's rounding allows, see
            :class:`~graphgen.fields.PairField`.

        Raises:
            GraphgenError: a sampler that there is not or that the SDE does not have, or too few steps.
        """
        return self._carry(ids, seed, sizes, self.plan(ids, seed, steps, sampler, corrections, snr))

    def plan(
        self,
        ids: Tensor,
        seed: int,
        steps: int = 100,
        sampler: str = "reverse-diffusion",
        corrections: int = 0,
        snr: float = 0.16,
    ) -> Walk:
        diffusion = self.diffusion
        diffusion.check_sampler(steps, sampler, corrections)

        def walk(posterior: Posterior, start: Parts, ptr: Tensor) -> tuple[float, Parts]:
            def score_at(t: Tensor, x: Parts) -> Parts:
                a, b = diffusion.levels(t[:1], self.dtype)
                return score(posterior, self.scale * a / b, b, x)

            x: Any = reverse_sde(
                score_at,
                scaled(start, diffusion.sde.std(1.0)),
                ptr,
                diffusion.sde,
                steps,
                t1=diffusion.t_min,
                predictor=SAMPLERS[sampler],  # type: ignore[arg-type]
                corrections=corrections,
                snr=snr,
                seed=seed,
                graph_ids=ids,
            )
            return self.scale * diffusion.ratio(diffusion.t_min), scaled(x, 1 / diffusion.sde.std(diffusion.t_min))

        return walk
