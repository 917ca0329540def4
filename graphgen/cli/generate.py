"""graphgen generate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import (
    BatchSize,
    Column,
    Device,
    Seed,
    check_device,
    load_data,
    log,
    plain,
    rejects_path,
    take_split,
)


def generate(
    model: Annotated[Path, typer.Argument(help="Folder that `graphgen train` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write: .csv (every attempt) or .smi.")],
    n: Annotated[int, typer.Option("-n", help="Attempts.")] = 1000,
    structures: Annotated[
        str | None,
        typer.Option(help="Data set or file whose molecules lend their bonds [default: the training data]."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which of its splits: train, valid, test.")] = "test",
    steps: Annotated[int, typer.Option(help="Steps of the solver.")] = 20,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    column: Column = None,
    device: Device = "cpu",
) -> None:
    """Sample atoms on the bonds of real molecules (by default held-out ones: the test split).

    Example: graphgen generate runs/qm9 -n 10000 -o out.csv
    """
    from graphgen import generate as workflow
    from graphgen.errors import GraphgenError
    from graphgen.models import checkpoint, load
    from graphgen.molecules.datasets import SOURCES
    from graphgen.train import LOG

    if n < 1 or batch_size < 1 or steps < 1:
        raise GraphgenError(f"-n ({n}), --batch-size ({batch_size}) and --steps ({steps}) must be at least 1")
    if out.suffix.lower() not in (".csv", ".smi"):
        raise GraphgenError(f"{out}: write to a .csv or .smi file")
    check_device(device)
    network = load(model)
    if structures is None:
        log_of_run = checkpoint.read_json(model / LOG) if (model / LOG).exists() else {}
        structures = log_of_run.get("data", {}).get("name")
        if structures not in SOURCES:
            raise GraphgenError(
                f"{model}: was not trained on a named data set; say whose bonds to use with --structures"
            )
    data, code = load_data(structures, column, rejects_path(out))
    skeletons = take_split(data, split)
    log(f"bonds come from the {split} split of {plain(data.name)} ({len(skeletons):,} molecules); atoms are sampled")
    result = workflow.generate(network, skeletons, n, seed, batch_size, steps, device)
    missing = result.save(out)
    failed = sum(smiles is None for smiles in result.smiles)
    left_out = f" (left out: {missing})" if missing else ""
    log(f"{n:,} attempts, {n - failed:,} molecules, {failed:,} failures{left_out}: {plain(out)}")
    raise typer.Exit(code)
