"""What a score is trained on: each loss a number per graph, from the score, points and their graph alone."""

from graphgen.losses.denoising import denoising_score_matching
from graphgen.losses.implicit import implicit_score_matching
from graphgen.losses.sliced import reduced_sliced_score_matching, sliced_score_matching

__all__ = [
    "denoising_score_matching",
    "implicit_score_matching",
    "reduced_sliced_score_matching",
    "sliced_score_matching",
]
