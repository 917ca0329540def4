"""graphgen train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import Column, Device, Seed, check_device, load_data, log, plain, rejects_path


def train(
    input: Annotated[str, typer.Option("-i", "--input", help="nci, qm9, zinc250k, or a .smi/.csv/.sdf(.gz) file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model.")],
    model: Annotated[str, typer.Option("-m", "--model", help="graph-cnf")] = "graph-cnf",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Molecules per training step.")] = 256,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    objective: Annotated[str, typer.Option(help="flow-matching (fast) or likelihood.")] = "flow-matching",
    hidden: Annotated[int, typer.Option(help="Width of the network.")] = 64,
    layers: Annotated[int, typer.Option(help="Rounds of message passing.")] = 3,
    label_smoothing: Annotated[float, typer.Option(help="Share of a label's point that goes to all labels.")] = 0.0,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    column: Column = None,
    device: Device = "cpu",
) -> None:
    """Train a model on the training split of a data set; the folder gets a complete model after every epoch.

    Example: graphgen train -i qm9 -o runs/qm9 --epochs 30
    """
    import torch

    from graphgen import train as workflow
    from graphgen.errors import GraphgenError
    from graphgen.models import MODELS
    from graphgen.models.graph_cnf import OBJECTIVES

    if model not in MODELS:
        raise GraphgenError(f"model {model!r}: choose one of {', '.join(MODELS)}")
    if objective not in OBJECTIVES:
        raise GraphgenError(f"--objective {objective}: choose one of {', '.join(OBJECTIVES)}")
    check_device(device)
    settings = workflow.TrainSettings(epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, objective=objective)
    data, code = load_data(input, column, rejects_path(out))
    torch.manual_seed(seed)
    network = MODELS[model](data.vocabulary, hidden=hidden, layers=layers, label_smoothing=label_smoothing)
    records = workflow.train(network, data, out, settings, resume, device)
    last = records[-1]
    log(
        f"trained {last['step']:,} steps in {last['seconds']:.0f} s; loss {last['train']:.4f} (train) "
        f"{last['valid']:.4f} (valid); model in {plain(out)}"
    )
    raise typer.Exit(code)
