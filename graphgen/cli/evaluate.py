"""graphgen evaluate"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from graphgen.cli.common import PART, Column, Device, Seed, check_device, load_data, log, plain, show
from graphgen.cli.config import Config, config_path, write_config
from graphgen.molecules import output


def evaluate(
    context: typer.Context,
    generated: Annotated[Path, typer.Argument(help="Generated molecules: .csv, .smi, .sdf (.gz too) or .parquet.")],
    train: Annotated[
        str,
        typer.Option(help="Data set the model was trained on: novelty and controls are against its train split."),
    ],
    structures: Annotated[
        str | None,
        typer.Option(
            help=f"Whose bonds they were given: test, valid or train of that data set; or {PART}; or none.",
            show_default="as beside the file, else test",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or name of the model, to measure its likelihood on these molecules.")
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

    Counts over all attempts; the distribution of the valid ones against the molecules that lent the bonds, with the
    floor that training molecules reach; validity as MOSES, DIG and GDSS define it. With --structures none only the
    SMILES are judged.

    Examples:
      graphgen evaluate out.csv --train qm9 --model runs/qm9 -o report.html
      graphgen evaluate theirs.smi --train zinc250k --json metrics.json
    """
    from dataclasses import replace

    import graphgen
    from graphgen import evaluate as workflow
    from graphgen import follow, likelihood
    from graphgen.generated import Generated
    from graphgen.metrics.floors import as_in_source
    from graphgen.molecules import datasets
    from graphgen.molecules.encoded import SPLITS
    from graphgen.molecules.records import read_records
    from graphgen.sampled import is_model

    check_device(device)
    attempts = Generated.load(generated, generated_column)
    whose = structures or _as_generated(generated) or "test"
    whose = "none" if is_model(whose) else whose  # bonds that a model sampled are nowhere to be looked up
    settings: dict[str, object] = {"generated": str(generated), "train": train, "structures": whose}
    if not any(suffix.lower() in output.TABLES for suffix in generated.suffixes):
        settings["attempts"] = "records of a list of molecules, which holds no failed attempts; a table has them"
    data, _ = load_data(train, column, None)
    if whose == "none":
        attempts, whose = replace(attempts, structures=None), "test"
    lender, split = (train, whose) if whose in SPLITS else datasets.split_name(whose)
    lending = data if lender == train else load_data(lender, column, None)[0]
    held_out = datasets.part(lending, split)
    nats, top, curve, paths, folder = None, None, {}, [], None
    if model is not None:
        trained = graphgen.load(model)
        network, folder = trained.network, trained.folder
        if trained.has_likelihood:
            nats = likelihood.held_out_nats(network, held_out, seed, device=device)
        top = likelihood.held_out_top(network, held_out, seed, device=device) if trained.has_marginals else None
        paths = follow.follow(network, held_out, seed=seed, device=device)
        settings["model"] = str(model)
        if run := trained.run:
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
        raw=as_in_source(held_out, read_records(datasets.source_file(lender), column)),
        top=top,
    )
    if report is not None:
        found.html(report, curve, ("epoch", "loss per atom"), paths)
        write_config(context, report, [data], folder)
        log(f"report: {plain(report)}")
    if json is not None:
        found.save_json(json)
        write_config(context, json, [data], folder)
        log(f"numbers: {plain(json)}")
    show(found)


def _as_generated(generated: Path) -> str | None:
    """Whose bonds the file was given, as the configuration beside it says."""
    beside = config_path(generated)
    try:
        return tomllib.loads(beside.read_text(encoding="utf-8")).get("structures")
    except (OSError, ValueError):
        return None


def training_curve(run: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """The losses of a training log, for a report."""
    return {
        name: [(row["epoch"], row[name]) for row in run["epochs"] if name in row] for name in ("train", "valid", "nats")
    }
