"""The installed torchsde, whoever answers to its name."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

_ALIAS = "graphgen.compat._original_torchsde"


def original(purpose: str) -> ModuleType:
    """torchsde itself, under a name of ours, so that it and the drop-in live side by side.

    Raises:
        ImportError: it is not installed; `purpose` says what it was wanted for.
    """
    if _ALIAS in sys.modules:
        return sys.modules[_ALIAS]
    found = importlib.machinery.PathFinder.find_spec("torchsde")
    if found is None or found.origin is None:
        raise ImportError(f"{purpose} needs torchsde itself; pip install torchsde", name="torchsde")
    # All its own imports are relative, so the name is free to choose.
    spec = importlib.util.spec_from_file_location(
        _ALIAS, found.origin, submodule_search_locations=list(found.submodule_search_locations or ())
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_ALIAS] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_ALIAS]
        raise
    return module
