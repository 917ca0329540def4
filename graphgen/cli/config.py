"""``--config``: the options of a verb in a TOML file, and the same file written beside what the verb wrote."""

from __future__ import annotations

import difflib
import hashlib
import json
import platform
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.molecules.encoded import EncodedMolecules

ABOUT = "about"
"""The table that says how an output came to be; it is written and not read, but for the verb."""

_OWN = ("config", "help")


def _take(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        # Looked up only for what the command line does not give.
        context.default_map = _read(path, context)
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_take,
        is_eager=True,
        help="TOML file of options by name, such as one that was written beside an output; the command line wins.",
    ),
]


def _read(path: Path, context: typer.Context) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise GraphgenError(f"--config {path}: cannot be read ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GraphgenError(f"--config {path}: not TOML ({error})") from None
    verb = context.info_name
    about = content.pop(ABOUT, {})
    if isinstance(about, dict) and about.get("verb", verb) != verb:
        raise GraphgenError(f"--config {path}: is of `graphgen {about['verb']}`, not of `graphgen {verb}`")
    options = {_key(option.name): option for option in context.command.params if option.name not in _OWN}
    chosen = {}
    for key, value in content.items():
        option = options.get(_key(key))
        if option is None:
            nearest = difflib.get_close_matches(_key(key), options, 1, cutoff=0)
            raise GraphgenError(
                f"--config {path}: graphgen {verb} has no option {key!r}; did you mean {nearest[0]!r}? "
                f"There are {', '.join(options)}"
            )
        flag, several = getattr(option, "is_flag", False), option.nargs == -1
        if isinstance(value, bool) != flag or isinstance(value, dict) or isinstance(value, list) != several:
            kind = "true or false" if flag else "a list" if several else "one number or text"
            raise GraphgenError(f"--config {path}: {key} must be {kind}")
        chosen[str(option.name)] = value if flag or several else str(value)
    return chosen


def config_path(out: Path) -> Path:
    """Where the configuration of an output goes: beside a file, into a folder."""
    return out / "config.toml" if out.is_dir() else out.with_name(out.name + ".config.toml")


def write_config(
    context: typer.Context,
    out: Path,
    data: Iterable[EncodedMolecules] = (),
    folder: Path | None = None,
    **resolved: Any,
) -> None:
    """Write the options of this run as a file that ``--config`` takes, with versions and hashes of what went in.

    Args:
        data: the data sets that were used.
        folder: of the model that was used.
        resolved: options whose value was worked out after parsing.
    """
    import numpy
    import rdkit
    import torch

    import graphgen
    from graphgen.models import checkpoint

    verb, path = context.info_name, config_path(out)
    values = context.params | resolved
    chosen = {str(option.name): values[option.name] for option in context.command.params if option.name not in _OWN}
    about: dict[str, Any] = {
        "verb": verb,
        "graphgen": graphgen.__version__,
        "torch": torch.__version__,
        "rdkit": rdkit.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    for found in data:
        about |= {"data": found.name, "data-sha256": found.source_sha256}
    if folder is not None:
        with open(folder / checkpoint.WEIGHTS, "rb") as weights:
            about["model-sha256"] = hashlib.file_digest(weights, "sha256").hexdigest()
    lines = [f"# What made {_toml(out)}; once more: graphgen {verb} --config {_toml(path)}"]
    lines += [f"{_key(key)} = {_toml(value)}" for key, value in chosen.items() if value is not None]
    lines += ["", f"[{ABOUT}]", *(f"{key} = {_toml(value)}" for key, value in about.items())]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _key(name: str | None) -> str:
    return str(name).replace("_", "-")


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    # JSON's strings are TOML's but for one character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
