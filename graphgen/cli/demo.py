"""graphgen demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import Seed, load_data, log, plain, show
from graphgen.cli.evaluate import training_curve


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for everything it makes.")] = Path("graphgen-demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 40,
    seed: Seed = 0,
) -> None:
    """Train a graph CNF on the real molecules that come with RDKit, generate, evaluate, and write a report.

    Needs no data and no network; takes one to three minutes on a laptop.

    Example: graphgen demo -o graphgen-demo
    """
    import time

    import torch

    import graphgen
    from graphgen import evaluate, follow, likelihood
    from graphgen import train as training
    from graphgen.models import GraphCNF, checkpoint

    started = time.monotonic()
    data, _ = load_data("nci", None, None)
    held_out = data.split("test")
    torch.manual_seed(seed)
    model = GraphCNF(data.vocabulary)
    settings = training.TrainSettings(epochs=epochs, batch_size=64, seed=seed)
    training.train(model, data, out / "model", settings, resume=(out / "model" / training.LOG).exists())
    generated = graphgen.load(out / "model").generate(len(held_out), seed, held_out, nll_draws=0)
    generated.save(out / "generated.csv")
    nats = likelihood.held_out_nats(model, held_out, seed)
    top = likelihood.held_out_top(model, held_out, seed)
    run = checkpoint.read_json(out / "model" / training.LOG)
    last = run["epochs"][-1]
    found = evaluate.evaluate(
        generated,
        data.split("train"),
        held_out,
        nats,
        title="graph CNF on NCI molecules",
        settings={
            "data": f"nci: {len(data.split('train'))} train, {len(held_out)} test molecules",
            "bonds": "of the test molecules, one attempt each; atoms sampled by argmax of the flow's end",
            "training": f"{last['step']} steps of {settings.batch_size} in {last['seconds']:.0f} s",
            "seed": seed,
            "device": f"cpu, {torch.get_num_threads()} threads",
            "versions": f"graphgen {graphgen.__version__}, torch {torch.__version__}",
        },
        seed=seed,
        reference=held_out,
        top=top,
    )
    report = out / "report.html"
    found.html(report, training_curve(run), ("epoch", "loss per atom"), follow.follow(model, held_out, seed=seed))
    found.save_json(out / "metrics.json")
    show(found)
    log(f"everything is in {plain(out)} ({time.monotonic() - started:.0f} s); open {plain(report)} in a browser")
