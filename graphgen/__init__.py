"""graphgen: generative models of molecular graphs on an engine of CUDA and CPU kernels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from graphgen.generated import Generated
    from graphgen.trained import TrainedModel, load

__version__ = "0.1.0"

__all__ = ["Generated", "GraphBatch", "GraphgenError", "TrainedModel", "__version__", "load", "ops"]

# A script that only wants the kernels should not wait for models and molecules.
_LATER = {"Generated": "graphgen.generated", "TrainedModel": "graphgen.trained", "load": "graphgen.trained"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'graphgen' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
