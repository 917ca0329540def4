"""graphgen: generative models of molecular graphs on an engine of CUDA and CPU kernels."""

try:
    from graphgen import _C  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"graphgen's engine is not built in {__path__[0]} ({error}). Python imported the source folder: "
        "run it from another folder after `pip install .`"
    ) from None

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch
from graphgen.models import load

__version__ = "0.1.0"

__all__ = ["GraphBatch", "GraphgenError", "__version__", "load", "ops"]
