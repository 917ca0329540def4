"""graphgen evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import Column, Device, Seed, check_device, load_data, log, plain, show, take_split
from graphgen.cli.config import Config, write_config
from graphgen.molecules import output


def evaluate(
    context: typer.Context,
    generated: Annotated[Path, typer.Argument(help="Generated molecules: .csv, .smi, .sdf (.gz too) or .parquet.")],
    train: Annotated[
        str,
        typer.Option(help="Data set the model was trained on: novelty and controls are against its train split."),
    ],
    split: Annotated[str, typer.Option(help="Its split that lent the bonds, if the file names skeletons.")] = "test",
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model, to measure its likelihood on that split.")
    ] = None,
    report: Annotated[Path | None, typer.Option("-o", "--report", help="HTML report to write.")] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file of all numbers to write.")] = None,
    fcd: Annotated[bool, typer.Option("--fcd", help="Also the Fréchet ChemNet distance (extra fcd; slow).")] = False,
    seed: Seed = 0,
    column: Column = None,
    generated_column: Annotated[str | None, typer.Option(help="The same of the generated molecules.")] = None,
    device: Device = "cpu",
    config: Config = None,
) -> None:
    """Judge generated molecules, beside the rules that learn nothing where bonds were given.

    Counts over all attempts; the distribution of the valid ones against the split, with the floor that
    training molecules reach; validity as MOSES, DIG and GDSS define it.

    Examples:
      graphgen evaluate out.csv --train qm9 --model runs/qm9 -o report.html
      graphgen evaluate theirs.smi --train zinc250k --json metrics.json
    """
    from graphgen import evaluate as workflow
    from graphgen import follow, likelihood
    from graphgen.generated import Generated
    from graphgen.metrics.floors import as_in_source
    from graphgen.models import checkpoint, load
    from graphgen.molecules import datasets
    from graphgen.molecules.records import read_records

    check_device(device)
    attempts = Generated.load(generated, generated_column)
    settings: dict[str, object] = {
        "generated": str(generated),
        "train": train,
        "structures": f"{split} split",
    }
    if not any(suffix.lower() in output.TABLES for suffix in generated.suffixes):
        settings["attempts"] = "records of a list of molecules, which holds no failed attempts; a table has them"
    data, _ = load_data(train, column, None)
    held_out = take_split(data, split)
    nats, curve, paths = None, {}, []
    if model is not None:
        trained = load(model)
        nats = likelihood.held_out_nats(trained, held_out, seed, device=device)
        paths = follow.follow(trained, held_out, seed=seed, device=device)
        settings["model"] = str(model)
        if run := checkpoint.read_log(model):
            curve = training_curve(run)
    found = workflow.evaluate(
        attempts,
        data.split("train"),
        held_out,
        nats,
        title=f"{generated.name} ({data.name})",
        settings=settings,
        seed=seed,
        reference=held_out,
        with_fcd=fcd,
        raw=as_in_source(held_out, read_records(datasets.source_file(train), column)),
    )
    if report is not None:
        found.html(report, curve, ("epoch", "nats per atom"), paths)
        write_config(context, report, [data], model)
        log(f"report: {plain(report)}")
    if json is not None:
        found.save_json(json)
        write_config(context, json, [data], model)
        log(f"numbers: {plain(json)}")
    show(found)


def training_curve(run: dict) -> dict[str, list[tuple[float, float]]]:
    """The losses of a training log, for a report."""
    return {name: [(row["epoch"], row[name]) for row in run["epochs"]] for name in ("train", "valid")}
