"""A federation described in a TOML file.

suite = "digits"                      # or "molecules"
clients = ["contrast", "blur"]        # and the other arguments of the suite's function
[settings]                            # graphgen.federated.Settings
server_lr = 1e-4
[joins]                               # clients that come late: in which round
blur = 5
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from graphgen.errors import GraphgenError
from graphgen.federated.settings import Settings
from graphgen.federated.suites import Suite
from graphgen.federated.suites.digits import digits
from graphgen.federated.suites.molecules import molecules

SUITES: dict[str, Callable[..., Suite]] = {"digits": digits, "molecules": molecules}


@dataclass(frozen=True)
class Configuration:
    """What a file says.

    Attributes:
        suite: name of the suite.
        arguments: of its function; ``seed`` is the settings'.
        settings: as given; a missing one has its default.
        joins: by client, the round it comes in.
    """

    suite: str
    arguments: dict[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    joins: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Configuration:
        """
        Raises:
            GraphgenError: it cannot be read, or holds a name that is not known or a value of another kind.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise GraphgenError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise GraphgenError(f"{path}: not TOML ({error})") from None
        try:
            return cls._of(content)
        except GraphgenError as error:
            raise GraphgenError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Configuration:
        suite = content.pop("suite", None)
        if suite not in SUITES:
            raise GraphgenError(f"suite {suite!r}: choose one of {', '.join(SUITES)}")
        tables = {name: content.pop(name, {}) for name in ("settings", "joins")}
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise GraphgenError(f"{name} must be a table, [{name}]")
        _check(content, inspect.signature(SUITES[suite]).parameters.keys() - {"seed"}, suite)
        kinds = {one.name: type(one.default) for one in fields(Settings)}
        _check(tables["settings"], kinds, "settings")
        for name, value in tables["settings"].items():
            if type(value) is not kinds[name] and not (kinds[name] is float and type(value) is int):
                raise GraphgenError(f"settings: {name} must be of type {kinds[name].__name__}, not {value!r}")
        for name, round in tables["joins"].items():
            if type(round) is not int or round < 1:
                raise GraphgenError(f"joins: {name} must be a round, 1 or later, not {round!r}")
        return cls(suite, content, Settings(**tables["settings"]), tables["joins"])

    def build(self, clients: int | None = None) -> Suite:
        """The suite, or one of its first so many clients.

        Raises:
            GraphgenError: there are fewer, or as the suite's function.
        """
        try:
            made = SUITES[self.suite](**self.arguments, seed=self.settings.seed)
        except TypeError as error:
            raise GraphgenError(f"{self.suite}: {error}") from None
        if clients is None:
            return made
        if not 1 <= clients <= len(made.clients):
            names = ", ".join(domain.name for domain in made.clients)
            raise GraphgenError(f"{clients} clients: the configuration has {len(made.clients)} ({names})")
        return Suite(made.source, made.clients[:clients], made.networks, made.classes)


def _check(given: Collection[str], known: Collection[str], of: str) -> None:
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1, cutoff=0)
            names = ", ".join(sorted(known))
            raise GraphgenError(f"{of}: there is no {name!r}; did you mean {nearest[0]!r}? There are {names}")
