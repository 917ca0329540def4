"""``graphgen``: exit 0 done, 1 a user's error in one line, 2 some rows rejected, 130 interrupted."""

from __future__ import annotations

import sys

import typer

from graphgen.cli import data, demo, doctor, evaluate, generate, train
from graphgen.cli.common import EXIT_ERROR, EXIT_INTERRUPTED, log, plain
from graphgen.errors import GraphgenError

app = typer.Typer(
    name="graphgen",
    help="Generative models of molecular graphs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (demo, train, generate, evaluate, data, doctor):
    app.command()(getattr(verb, verb.__name__.rpartition(".")[2]))


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
        log(f"[bold red]error:[/] {plain(error.format_message())} (see --help)")
        code = EXIT_ERROR
    if code == EXIT_INTERRUPTED:
        log("interrupted: what was finished is kept, and `graphgen train ... --resume` goes on from there")
    sys.exit(code if isinstance(code, int) else 0)
