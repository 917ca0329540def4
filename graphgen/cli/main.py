"""``graphgen``: exit 0 done, 1 a user's error in one line, 2 some rows rejected, 130 interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated

import typer

from graphgen import __version__
from graphgen.cli import (
    bench,
    data,
    demo,
    doctor,
    evaluate,
    federate,
    generate,
    inspect,
    interpolate,
    likelihood,
    optimize,
    reconstruct,
    train,
)
from graphgen.cli.common import EXIT_ERROR, EXIT_INTERRUPTED, log, plain
from graphgen.errors import GraphgenError


def _help(verb: Callable[..., None]) -> str:
    """Its docstring for a terminal of any width: paragraphs joined, but for the examples."""
    paragraphs = cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join(text if text.startswith("Example") else text.replace("\n", " ") for text in paragraphs)


app = typer.Typer(
    name="graphgen",
    help="Generative models of molecular graphs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"graphgen {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Generative models of molecular graphs."""


_VERBS = (
    demo, train, generate, evaluate, likelihood, reconstruct, interpolate, optimize, federate, inspect, data, bench,
    doctor,
)  # fmt: skip
for module in _VERBS:
    verb = getattr(module, module.__name__.rpartition(".")[2])
    app.command(help=_help(verb))(verb)


def main() -> None:
    """Entry point: turns what went wrong into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
    except GraphgenError as error:
        log(f"[bold red]error:[/] {plain(error)}")
        code = EXIT_ERROR
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except Exception as error:
        # The parser's own complaints know how to print themselves; anything else is our bug and keeps its traceback.
        if not hasattr(error, "format_message"):
            raise
        log(f"[bold red]error:[/] {plain(' '.join(error.format_message().split()))} (see --help)")
        code = EXIT_ERROR
    if code == EXIT_INTERRUPTED:
        log("interrupted: files are written whole or not at all; `graphgen train ... --resume` goes on with a training")
    sys.exit(code if isinstance(code, int) else 0)
