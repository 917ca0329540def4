"""graphgen: generative models of molecular graphs on an engine of CUDA and CPU kernels."""

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.models import load

__version__ = "0.1.0"

__all__ = ["GraphBatch", "GraphgenError", "__version__", "load", "ops"]
