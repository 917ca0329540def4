"""graphgen generate"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import (
    MOLECULES,
    BatchSize,
    Column,
    Device,
    Seed,
    check_device,
    load_data,
    log,
    plain,
    positive,
    rejects_path,
    take_split,
)
from graphgen.cli.config import Config, write_config


def generate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder that `graphgen train` wrote.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help=".csv or .parquet for every attempt, .smi or .sdf for molecules alone (.gz too)."
        ),
    ],
    n: Annotated[int, typer.Option("-n", help="Rows to write.")] = 1000,
    structures: Annotated[
        str | None,
        typer.Option(help=f"Whose bonds to use: {MOLECULES}.", show_default="the model's own data"),
    ] = None,
    split: Annotated[str, typer.Option(help="Which of its splits: train, valid, test.")] = "test",
    steps: Annotated[int, typer.Option(help="Steps of the solver.")] = 20,
    temperature: Annotated[
        float,
        typer.Option(help="0 takes the likeliest label of every atom; 1 draws by the model's own law."),
    ] = 0.0,
    nll_draws: Annotated[int, typer.Option(help="Draws for the column NLL; 0 leaves it out and halves the time.")] = 4,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    column: Column = None,
    device: Device = "cpu",
    config: Config = None,
) -> None:
    """Sample atoms on the bonds of real molecules (by default held-out ones: the test split).

    A table gets n attempts, failures included with their reason; a list gets n molecules, and the log says how many
    attempts that took. NLL is minus the model's log-probability of the atoms given the bonds, in nats.

    Examples:
      graphgen generate runs/qm9 -n 10000 -o out.csv
      graphgen generate runs/qm9 -n 500 -o out.sdf.gz --structures mine.smi --split train --seed 7
      graphgen generate --config out.csv.config.toml
    """
    import graphgen
    from graphgen.errors import GraphgenError
    from graphgen.molecules import output
    from graphgen.molecules.datasets import SOURCES

    positive(n=n, batch_size=batch_size, steps=steps)
    if nll_draws < 0:
        raise GraphgenError(f"--nll-draws must be 0 or more, not {nll_draws}")
    if not 0 <= temperature < math.inf:
        raise GraphgenError(f"--temperature must be 0 or more, not {temperature}")
    alone = output.kind_of(out) in output.LISTS
    check_device(device)
    trained = graphgen.load(model)
    if structures is not None:
        data, code = load_data(structures, column, rejects_path(out))
    else:
        data, code = trained.data(), 0
        structures = data.name if data.name in SOURCES else None
    skeletons = take_split(data, split)
    log(f"bonds come from the {split} split of {plain(data.name)} ({len(skeletons):,} molecules); atoms are sampled")
    result = trained.generate(
        n,
        seed,
        skeletons,
        batch_size=batch_size,
        steps=steps,
        nll_draws=nll_draws,
        temperature=temperature,
        until_molecules=alone,
        device=device,
    )
    result.save(out)
    write_config(context, out, [data], model, structures=structures)
    failed = sum(smiles is None for smiles in result.smiles)
    log(
        f"{len(result):,} attempts, {len(result) - failed:,} molecules, {failed:,} failures; {n:,} rows in {plain(out)}"
    )
    raise typer.Exit(code)
