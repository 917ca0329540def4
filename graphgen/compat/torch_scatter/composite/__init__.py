"""torch_scatter.composite: softmax, logarithms of sums of exponentials and deviations of what shares an index."""

from graphgen.compat.torch_scatter.composite.logsumexp import scatter_logsumexp
from graphgen.compat.torch_scatter.composite.softmax import scatter_log_softmax, scatter_softmax
from graphgen.compat.torch_scatter.composite.std import scatter_std

__all__ = ["scatter_log_softmax", "scatter_logsumexp", "scatter_softmax", "scatter_std"]
