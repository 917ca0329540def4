"""What the verbs share: where to print, exit codes, options of the same meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from graphgen.errors import GraphgenError
from graphgen.molecules.encoded import EncodedMolecules

EXIT_ERROR, EXIT_PARTIAL, EXIT_INTERRUPTED = 1, 2, 130

Seed = Annotated[int, typer.Option(help="Of all random numbers; the same seed gives the same molecules.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[int, typer.Option(help="Molecules at a time; changes speed and memory, not results.")]
Column = Annotated[str | None, typer.Option(help="Column of the SMILES in a .csv or .parquet file.")]

MOLECULES = "nci, qm9, zinc250k, or a .smi, .csv, .sdf (.gz too) or .parquet file"
PART = f"{MOLECULES}; :train, :valid or :test behind it takes that split"
Model = Annotated[
    str, typer.Argument(help="Folder that `graphgen train` wrote, or a bundled model: qm9, zinc250k or qm9-cnf.")
]

_stderr = Console(stderr=True, soft_wrap=True, highlight=False)
_stdout = Console(soft_wrap=True, highlight=False)


def log(text: str) -> None:
    """A line for people, on standard error; ``text`` may hold rich markup."""
    _stderr.print(text)


def show(renderable: object) -> None:
    """A result, on standard output."""
    _stdout.print(renderable)


def plain(text: object) -> str:
    """Text from outside, safe within markup; file names that are no UTF-8 can be printed."""
    return escape(str(text).encode(errors="backslashreplace").decode())


def check_device(device: str) -> str:
    """
    Raises:
        GraphgenError: torch does not know the device or it is not there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise GraphgenError(f"--device {device}: not available here ({str(error).splitlines()[0]})") from None
    return device


def positive(**options: float) -> None:
    """
    Raises:
        GraphgenError: an option is not above 0.
    """
    for name, value in options.items():
        if not value > 0:
            flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
            raise GraphgenError(f"{flag} must be above 0, not {value}")


def load_data(name_or_path: str, column: str | None, rejects: Path | None) -> tuple[EncodedMolecules, int]:
    """A data set, and the exit code its rejected rows ask for; they are written to ``rejects``.

    The rows a named set leaves out are part of what the set is, so they are only counted.

    Args:
        name_or_path: its name or file; ``:split`` behind it takes only that split.
    """
    from graphgen.molecules.datasets import SOURCES, load, part, split_name
    from graphgen.molecules.records import write_rejects

    name, split = split_name(name_or_path)
    data = load(name, column)
    found = part(data, split)
    chosen = "" if split is None else f"; its {split} split has {len(found):,}"
    log(f"{plain(data.name)}: {len(data):,} molecules, {len(data.vocabulary)} atom types{chosen}")
    if not data.rejects or name in SOURCES:
        return found, 0
    reasons = ", ".join(f"{plain(reason)}: {count:,}" for reason, count in data.report["rejected"].items())
    where = ""
    if rejects is not None:
        write_rejects(rejects, data.rejects)
        where = f"; listed in {plain(rejects)}"
    log(f"[yellow]{len(data.rejects):,} rows rejected[/] ({reasons}){where}")
    return found, EXIT_PARTIAL


def rejects_path(out: Path) -> Path:
    return out.with_name(out.name + ".rejects.csv")
