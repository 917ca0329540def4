"""graphgen inspect"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Column, Table

from graphgen.cli.common import Model, log, plain, show

_EPOCHS = 8


def inspect(
    model: Model,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what is in a model's folder: the model, its vocabulary, how it was trained and with what.

    Examples:
      graphgen inspect runs/qm9
      graphgen inspect runs/qm9 --json | jq .training.epochs
    """
    from json import dumps

    import graphgen

    found = describe(graphgen.load(model))
    if json:
        print(dumps(found, indent=1))
        return
    table = Table("", Column(overflow="fold"), show_header=False, box=None)
    run, data = found["training"], found["data"]
    table.add_row("model", f"{found['model']}, {found['parameters']:,} parameters, {_bytes(found['bytes'])}")
    table.add_row("settings", _pairs(found["settings"]))
    table.add_row(f"vocabulary ({len(found['vocabulary'])})", plain(" ".join(found["vocabulary"])))
    if data:
        table.add_row(
            "trained on", plain(f"{data['name']}: {data['train']:,} molecules, {data['valid']:,} to validate")
        )
        table.add_row("", f"SHA-256 {plain(data['sha256'])}")
    if run:
        done, asked = len(run["epochs"]), run["settings"].get("epochs")
        more = "" if done == asked else f" of {asked}; graphgen train ... --resume goes on"
        table.add_row("training", _pairs(run["settings"]))
        table.add_row("epochs", f"{done}{more}")
        table.add_row("made with", _pairs(run["environment"]))
    else:
        log(f"{plain(model)}: no training log; only the model itself is known")
    show(table)
    if run and run["epochs"]:
        show(_history(run["epochs"]))


def describe(trained: Any) -> dict[str, Any]:
    """What is known of a :class:`~graphgen.trained.TrainedModel`, in types that JSON has.

    Raises:
        GraphgenError: its log lacks something.
    """
    from graphgen.errors import GraphgenError
    from graphgen.models import checkpoint

    run = trained.run
    try:
        training = {
            "settings": dict(run["settings"]),
            "epochs": [
                {key: row[key] for key in ("epoch", "step", "train", "valid", "seconds")}
                | {key: row[key] for key in ("nats",) if key in row}
                for row in run["epochs"]
            ],
            "environment": {**run["environment"], "threads": run["threads"]},
        }
        data = {key: run["data"][key] for key in ("name", "sha256", "train", "valid")}
    except (KeyError, TypeError) as error:
        if run:
            path = trained.folder / checkpoint.LOG
            raise GraphgenError(f"{path}: not a training log ({error} is wrong or missing); copy it again") from None
        training, data = {}, {}
    return {
        "folder": str(trained.folder),
        "model": trained.network.name,
        "settings": dict(trained.network.settings),
        "vocabulary": trained.vocabulary.names,
        "parameters": sum(parameter.numel() for parameter in trained.network.parameters()),
        "bytes": (trained.folder / checkpoint.WEIGHTS).stat().st_size,
        "data": data,
        "training": training,
    }


def _history(epochs: list[dict[str, float]]) -> Table:
    with_nats = all("nats" in row for row in epochs)
    table = Table("epoch", "step", "train", "valid", *(["nats"] if with_nats else []), "seconds", box=None)
    count = min(_EPOCHS, len(epochs))
    best = min(epochs, key=lambda row: row["nats"] if with_nats else row["valid"])
    for i in sorted({(len(epochs) - 1) * k // max(count - 1, 1) for k in range(count)} | {epochs.index(best)}):
        row = epochs[i]
        losses = [f"{row[name]:.4f}" for name in ("train", "valid", "nats") if name in row]
        note = " (best)" if row is best else ""
        table.add_row(f"{row['epoch']}", f"{row['step']:,}", *losses, f"{row['seconds']:.0f}{note}")
    table.caption = "train and valid: the model's loss; nats: minus its log-probability of held-out molecules, per atom"
    table.caption_justify = "left"
    return table


def _pairs(values: dict[str, Any]) -> str:
    return plain(", ".join(f"{key} {value}" for key, value in values.items()))


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
