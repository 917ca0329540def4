"""Libraries that only some users need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from graphgen.errors import GraphgenError


def extra(module: str, name: str) -> ModuleType:
    """Import a module that the extra ``name`` of graphgen installs.

    Raises:
        GraphgenError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise GraphgenError(f"{package} is not installed; pip install 'graphgen[{name}]'") from None
