"""Other libraries' interfaces on this package's kernels.

A drop-in answers to another package's name only after :func:`install` was called, and until :func:`uninstall` is.
:mod:`graphgen.compat.dlpack` is for callers without torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from types import ModuleType

from graphgen.errors import GraphgenError

# The name a drop-in answers to, and the package that is it.
_DROP_INS = {
    "torch_scatter": "graphgen.compat.torch_scatter",
    "torchdiffeq": "graphgen.compat.torchdiffeq",
    "torchsde": "graphgen.compat.torchsde",
}


def install(name: str) -> ModuleType:
    """Let ``import name`` give graphgen's drop-in, for this process and until :func:`uninstall`.

    Call it before anything imports that library; what was imported earlier keeps what it found then. Calling it again
    changes nothing.

    Args:
        name: "torch_scatter", "torchdiffeq" or "torchsde".

    Returns:
        The drop-in.

    Raises:
        GraphgenError: the library itself has been imported already.
        ValueError: there is no drop-in of this name.
    """
    modules = _modules(name)
    present = sys.modules.get(name)
    if present is modules[name]:
        return modules[name]
    if present is not None:
        raise GraphgenError(
            f"{name} itself is already imported (from {getattr(present, '__file__', 'memory')}): "
            f"call graphgen.compat.install({name!r}) before anything imports it"
        )
    if name == "torch_scatter" and "torch_geometric" in sys.modules:
        warnings.warn(
            f"torch_geometric is already imported and keeps to the {name} it found then, or to none: "
            f"call graphgen.compat.install({name!r}) first",
            stacklevel=2,
        )
    sys.modules.update(modules)
    return modules[name]


def uninstall(name: str) -> None:
    """Undo :func:`install`: the next ``import name`` finds the library itself, or nothing. Objects in use stay valid.

    Raises:
        ValueError: there is no drop-in of this name.
    """
    for alias, module in _modules(name).items():
        if sys.modules.get(alias) is module:
            del sys.modules[alias]


def _modules(name: str) -> dict[str, ModuleType]:
    """The drop-in and its submodules, each under the name that the library has for it."""
    if name not in _DROP_INS:
        raise ValueError(f"no drop-in for {name!r}; there are {', '.join(sorted(_DROP_INS))}")
    own = _DROP_INS[name]
    package = importlib.import_module(own)
    below = [found.name for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{own}.")]
    return {name + path.removeprefix(own): importlib.import_module(path) for path in (own, *below)}
