"""What the verbs share: where to print, exit codes, options of the same meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from graphgen.errors import GraphgenError
from graphgen.molecules.encoded import SPLITS, EncodedMolecules

EXIT_ERROR, EXIT_PARTIAL, EXIT_INTERRUPTED = 1, 2, 130

Seed = Annotated[int, typer.Option(help="Of all random numbers; the same seed gives the same molecules.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[int, typer.Option(help="Molecules at a time; changes speed and memory, not results.")]
Column = Annotated[str | None, typer.Option(help="Column of the SMILES in a CSV file.")]

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


def load_data(name_or_path: str, column: str | None, rejects: Path | None) -> tuple[EncodedMolecules, int]:
    """A data set, and the exit code its rejected rows ask for; they are written to ``rejects``.

    The rows a named set leaves out are part of what the set is, so they are only counted.
    """
    from graphgen.molecules.datasets import SOURCES, load
    from graphgen.molecules.records import write_rejects

    data = load(name_or_path, column)
    log(f"{plain(data.name)}: {len(data):,} molecules, {len(data.vocabulary)} atom types")
    if not data.rejects or name_or_path in SOURCES:
        return data, 0
    reasons = ", ".join(f"{count} {plain(reason)}" for reason, count in data.report["rejected"].items())
    where = ""
    if rejects is not None:
        write_rejects(rejects, data.rejects)
        where = f"; listed in {plain(rejects)}"
    log(f"[yellow]{len(data.rejects):,} rows rejected[/] ({reasons}){where}")
    return data, EXIT_PARTIAL


def rejects_path(out: Path) -> Path:
    return out.with_name(out.name + ".rejects.csv")


def take_split(data: EncodedMolecules, split: str) -> EncodedMolecules:
    """
    Raises:
        GraphgenError: no such split, or it is empty.
    """
    if split not in SPLITS:
        raise GraphgenError(f"split {split!r}: there are {', '.join(SPLITS)}")
    part = data.split(split)
    if not len(part):
        raise GraphgenError(
            f"{data.name}: its {split} split is empty ({len(data)} molecules in all); take another split"
        )
    return part
