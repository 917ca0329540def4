"""States that are ``a x0 + b noise``, x0 the point of a label: what SDE, NCSN and DDPM have in common.

Given the label, the state is normal; so by Bayes' rule a label has the logit ``spread a / b^2 x_k`` plus what the
neighbourhood says, which is what the field learns. Its mean point, the score and the noise then follow from the
labels' probabilities:

    E[x0 | x] = spread p + shift,    score = (a E[x0 | x] - x) / b^2,    E[noise | x] = -b score.

How much signal there is, a and b, is all that a process's clock means to the posterior, so the field is told
``a / sqrt(a^2 + b^2)`` for time and sees ``x / sqrt(a^2 + b^2)``: every process asks it the same questions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from graphgen import ops
from graphgen.graph import GraphBatch
from graphgen.models.fixed_bonds import FixedBondModel

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(a [B], b [B], x [N, c]) -> [N, c]``."""


class GaussianModel(FixedBondModel):
    """A model on given bonds whose noise is Gaussian; arguments as :class:`FixedBondModel`'s."""

    def bind_logits(self, graph: GraphBatch) -> Denoiser:
        """The log-probabilities (up to a constant) of every atom's label."""
        field = self.field.bind(graph)

        def logits(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
            size = (a * a + b * b).rsqrt()
            return _each(self.spread * a / (b * b), graph) * x + field(a * size, _each(size, graph) * x)

        return logits

    def bind_mean(self, graph: GraphBatch) -> Denoiser:
        """E[x0 | x], the mean point of every atom's label."""
        logits = self.bind_logits(graph)
        return lambda a, b, x: ops.softmax(logits(a, b, x)) * self.spread + self.shift

    def bind_score(self, graph: GraphBatch) -> Denoiser:
        """The gradient of the log-density of the state."""
        mean = self.bind_mean(graph)

        def score(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
            return _each(a / (b * b), graph) * mean(a, b, x) + _each(-1 / (b * b), graph) * x

        return score


def _each(numbers: Tensor, graph: GraphBatch) -> Tensor:
    """[N, 1] every node's of numbers [B]: what a state is multiplied by, also one that stands in for a tensor."""
    return ops.segment_broadcast(numbers.unsqueeze(1), graph.ptr, graph.num_nodes)
