"""graphgen: generative models of molecular graphs on an engine of CUDA and CPU kernels."""

try:
    from graphgen import _C  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"graphgen's engine is not built in {__path__[0]} ({error}). Python imported the source folder: "
        "run it from another folder after `pip install .`"
    ) from None

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphgen.errors import GraphgenError

if TYPE_CHECKING:
    from graphgen import ops
    from graphgen.graph import GraphBatch
    from graphgen.models import load

__version__ = "0.1.0"

__all__ = ["GraphBatch", "GraphgenError", "__version__", "load", "ops"]

_LATER = {"GraphBatch": "graphgen.graph", "load": "graphgen.models"}


def __getattr__(name: str) -> Any:
    # torch takes seconds and 200 MB, which the processes that only parse molecules need not spend.
    if name == "ops":
        return import_module("graphgen.ops")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
