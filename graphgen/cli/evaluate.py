"""graphgen evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import Column, Device, Seed, check_device, load_data, log, plain, show, take_split


def evaluate(
    generated: Annotated[Path, typer.Argument(help="File of generated molecules: .csv or .smi.")],
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
    device: Device = "cpu",
) -> None:
    """Judge generated molecules, beside the rules that learn nothing where bonds were given.

    Counts over all attempts; the distribution of the valid ones against the split, with the floor that
    training molecules reach; validity as MOSES, DIG and GDSS define it.

    Example: graphgen evaluate out.csv --train qm9 --model runs/qm9 -o report.html
    """
    from graphgen import evaluate as workflow
    from graphgen import follow, likelihood
    from graphgen.errors import GraphgenError
    from graphgen.metrics.floors import as_in_source
    from graphgen.models import checkpoint, load
    from graphgen.molecules import datasets
    from graphgen.molecules.records import open_plain, read_records
    from graphgen.train import LOG

    check_device(device)
    if not generated.exists():
        raise GraphgenError(f"{generated}: no such file; give a .csv or .smi file of generated molecules")
    open_plain(generated).close()
    settings: dict[str, object] = {
        "generated": str(generated),
        "train": train,
        "structures": f"{split} split",
    }
    data, _ = load_data(train, column, None)
    held_out = take_split(data, split)
    nats, curve, paths = None, {}, []
    if model is not None:
        trained = load(model)
        nats = likelihood.held_out_nats(trained, held_out, seed, device=device)
        paths = follow.follow(trained, held_out, seed=seed, device=device)
        settings["model"] = str(model)
        if (model / LOG).exists():
            curve = training_curve(checkpoint.read_json(model / LOG))
    found = workflow.evaluate(
        generated,
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
        log(f"report: {plain(report)}")
    if json is not None:
        found.save_json(json)
        log(f"numbers: {plain(json)}")
    show(found)


def training_curve(run: dict) -> dict[str, list[tuple[float, float]]]:
    """The losses of a training log, for a report."""
    return {name: [(row["epoch"], row[name]) for row in run["epochs"]] for name in ("train", "valid")}
