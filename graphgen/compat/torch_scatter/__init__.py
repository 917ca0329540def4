"""Every public function of torch_scatter 2.1.2 on graphgen's kernels; ``graphgen.compat.install("torch_scatter")``.

Names, arguments and results are those of torch_scatter. Different on purpose:

* gradients of gradients and ``torch.func`` work for every function, and sums have the same bits in every run;
* on the CPU an index out of range raises IndexError;
* NaN goes through max and min, and -inf counts as a value like any other;
* the product's gradient is right where factors are 0, the deviation's is 0 where there is none;
* ``out=`` may have any memory layout, and ``scatter_logsumexp`` counts what ``out`` held before.
"""

from graphgen import __version__ as _own_version
from graphgen.compat.torch_scatter.composite import (
    scatter_log_softmax,
    scatter_logsumexp,
    scatter_softmax,
    scatter_std,
)
from graphgen.compat.torch_scatter.scatter import (
    scatter,
    scatter_add,
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_mul,
    scatter_sum,
)
from graphgen.compat.torch_scatter.segment_coo import (
    gather_coo,
    segment_add_coo,
    segment_coo,
    segment_max_coo,
    segment_mean_coo,
    segment_min_coo,
    segment_sum_coo,
)
from graphgen.compat.torch_scatter.segment_csr import (
    gather_csr,
    segment_add_csr,
    segment_csr,
    segment_max_csr,
    segment_mean_csr,
    segment_min_csr,
    segment_sum_csr,
)

# The release whose interface this is, and whose hands it is in.
__version__ = f"2.1.2+graphgen.{_own_version}"

__all__ = [
    "__version__",
    "gather_coo",
    "gather_csr",
    "scatter",
    "scatter_add",
    "scatter_log_softmax",
    "scatter_logsumexp",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_mul",
    "scatter_softmax",
    "scatter_std",
    "scatter_sum",
    "segment_add_coo",
    "segment_add_csr",
    "segment_coo",
    "segment_csr",
    "segment_max_coo",
    "segment_max_csr",
    "segment_mean_coo",
    "segment_mean_csr",
    "segment_min_coo",
    "segment_min_csr",
    "segment_sum_coo",
    "segment_sum_csr",
]
