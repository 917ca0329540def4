"""graphgen bench"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import EXIT_ERROR, Device, check_device, log, plain, positive


def bench(
    families: Annotated[
        list[str] | None,
        typer.Argument(
            help="compat, dense, message_passing, noise, pairs, sampling, stepping, trace.", show_default="all"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One size and few rounds: rough, within a minute.")] = False,
    only: Annotated[str, typer.Option(help="Only cases whose name contains this.", show_default=False)] = "",
    rounds: Annotated[int | None, typer.Option(help="Samples of each candidate.", show_default="31, or 5")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    device: Device = "cpu",
    json: Annotated[Path | None, typer.Option(help="Folder for all numbers, one JSON file for each family.")] = None,
) -> None:
    """Time the kernels beside what one would use instead, in the same run; "3.0x" took three times as long as ours.

    Peers that are not installed are left out by name. "Floor" is the time the memory or the arithmetic of the machine
    would need at least, over ours.

    Examples:
      graphgen bench --quick
      graphgen bench message_passing --only message_sum --json results
    """
    from graphgen.errors import GraphgenError

    folder = _folder()
    known = sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py"))
    for family in families or known:
        if family not in known:
            raise GraphgenError(f"benchmark {family!r}: choose from {', '.join(known)}")
    check_device(device)
    positive(threads=threads, rounds=1 if rounds is None else rounds)
    options = ["--device", device, "--threads", str(threads), "--only", only]
    options += ["--quick"] * quick + ([] if rounds is None else ["--rounds", str(rounds)])
    failed = []
    for family in families or known:
        command = [sys.executable, str(folder / f"bench_{family}.py"), *options]
        if json is not None:
            command += ["--json", str(json / f"bench_{family}.json")]
        if subprocess.run(command, check=False).returncode:
            failed.append(family)
    if failed:
        log(f"[bold red]failed:[/] {', '.join(failed)}; what they said is above")
    elif json is not None:
        log(f"numbers: {plain(json)}")
    raise typer.Exit(EXIT_ERROR if failed else 0)


def _folder() -> Path:
    """Beside the package's modules where it is installed, beside the package in a source tree.

    Raises:
        GraphgenError: in neither place.
    """
    import graphgen
    from graphgen.errors import GraphgenError

    package = Path(graphgen.__file__).parent
    for folder in (package / "bench", package.parent / "bench"):
        if (folder / "_bench.py").is_file():
            return folder
    raise GraphgenError(f"the benchmarks are not in {package}; install graphgen again")
