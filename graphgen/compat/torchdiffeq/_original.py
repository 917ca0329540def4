"""torchdiffeq itself, whoever answers to its name just now."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

from graphgen.errors import GraphgenError

_ALIAS = "graphgen_original_torchdiffeq"


def _installed() -> importlib.machinery.ModuleSpec | None:
    return importlib.machinery.PathFinder.find_spec("torchdiffeq")


@functools.cache
def original() -> ModuleType:
    """The installed torchdiffeq.

    Raises:
        GraphgenError: it is not installed.
    """
    found = _installed()
    if found is None or found.origin is None:
        raise GraphgenError("this call needs torchdiffeq's own code, which is not installed: pip install torchdiffeq")
    spec = importlib.util.spec_from_file_location(
        _ALIAS, found.origin, submodule_search_locations=found.submodule_search_locations
    )
    assert spec is not None and spec.loader is not None
    # Its own imports are relative, so that it may live under any name.
    module = sys.modules[_ALIAS] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
