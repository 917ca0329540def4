"""graphgen federate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphgen.cli.common import log, plain, positive, show


def federate(
    config: Annotated[Path, typer.Argument(help="TOML file: the suite, its clients, settings; see the README.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the run.")],
    clients: Annotated[
        int | None, typer.Option(help="The first so many of the configuration's.", show_default="all")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Of broadcast, adaptation and upload.", show_default="as configured")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers.", show_default="as configured")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
) -> None:
    """Adapt a model to the unlabelled data of many clients by DualAdapt; only models and mixtures leave a client.

    A simulation in one process, in which accuracy can be measured; the folder gets the models, a log of every round
    and accuracy.svg. Ctrl-C keeps the last finished round, and --resume goes on from there to the same numbers.

    Example: graphgen federate config.toml --clients 4 --rounds 20 -o runs/fed
    """
    from dataclasses import replace

    from rich.table import Table

    from graphgen.federated.configuration import Configuration
    from graphgen.federated.simulate import simulate
    from graphgen.files import atomic_write
    from graphgen.report.curve import curve_svg, standalone

    positive(**{name: value for name, value in (("clients", clients), ("rounds", rounds)) if value is not None})
    found = Configuration.read(config)
    changed: dict[str, Any] = {name: value for name, value in (("rounds", rounds), ("seed", seed)) if value is not None}
    found = replace(found, settings=replace(found.settings, **changed))
    suite = found.build(clients)
    names = [domain.name for domain in suite.clients]
    log(
        f"{found.suite}: {len(suite.source.labels):,} labelled source examples of {len(suite.classes)} classes; "
        f"clients {plain(', '.join(names))}"
    )
    joins = {name: round for name, round in found.joins.items() if name in names}
    described = {"suite": found.suite, "arguments": found.arguments}
    records = simulate(suite, found.settings, out, joins=joins, resume=resume, described=described)
    curves = {name: [(float(one["round"]), one["accuracy"][name]) for one in records] for name in names}
    picture = out / "accuracy.svg"
    # One round is no curve.
    if (svg := curve_svg(curves, "round", "accuracy, %")) is not None:
        with atomic_write(picture) as temporary:
            temporary.write_text(standalone(svg), encoding="utf-8")
    table = Table("client", "F_g alone, %", "DualAdapt, %", title=f"after round {len(records)}")
    last = records[-1]
    for name in names:
        table.add_row(plain(name), f"{last['accuracy_global'][name]:.1f}", f"{last['accuracy'][name]:.1f}")
    show(table)
    for one in records:
        for name, reason in one["refused"].items():
            log(f"[yellow]round {one['round']}: without {plain(name)}[/] ({plain(reason)})")
    log(f"models, log and {plain(picture.name)} are in {plain(out)} ({last['seconds']:.0f} s)")
