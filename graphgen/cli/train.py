"""graphgen train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphgen.cli.common import MOLECULES, Column, Device, Seed, check_device, load_data, log, plain, rejects_path
from graphgen.cli.config import Config, write_config

_OF_THE_MODEL = (
    "objective", "field", "hidden", "layers", "label_smoothing", "kinetic", "trained_end_time",
    "sde", "levels", "chain", "schedule", "prediction", "path", "pair_hidden", "heads", "structure", "conditions",
    "coupling", "order", "noise", "rounds",
    "latent", "matching", "kl_weight", "kl_anneal_steps", "max_atoms",
)  # fmt: skip


def train(
    context: typer.Context,
    input: Annotated[str, typer.Option("-i", "--input", help=f"Molecules: {MOLECULES}.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model.")],
    start: Annotated[
        str | None,
        typer.Option(
            metavar="<model>", help="Go on from the weights of this model: a folder or a bundled one, such as qm9."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="Atoms on given bonds: graph-cnf, graph-sde, graph-ncsn, graph-ddpm; whole molecules: graph-dfm, "
            "graph-nvp, mpgvae, graph-vae, and graph-sde, graph-ncsn, graph-ddpm with --structure joint.",
            show_default="graph-cnf",
        ),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(
            help="graph-sde, graph-ncsn, graph-ddpm: given (atoms on given bonds) or joint (atoms and bonds together).",
            show_default="given",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Molecules per training step.")] = 256,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    patience: Annotated[int, typer.Option(help="Stop after so many epochs that bettered nothing; 0: never.")] = 0,
    objective: Annotated[
        str | None,
        typer.Option(
            help="graph-cnf: flow-matching (fast) or likelihood; graph-sde: denoising, sliced or implicit.",
            show_default="the first",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            help="What an atom sees of a neighbour: nn, rbf (distances) or grand (attention).", show_default="nn"
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="graph-dfm: noise that is marginal (as the data), uniform or absorbing.", show_default="marginal"
        ),
    ] = None,
    coupling: Annotated[str | None, typer.Option(help="graph-nvp: affine or additive.", show_default="affine")] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="graph-nvp: order of a molecule's atoms, data (as they come), canonical, bfs or random.",
            show_default="data",
        ),
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="graph-nvp: width of the uniform noise on labels.", show_default="0.2")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(help="graph-nvp: turns of every atom.", show_default="4; 1 if there are more than 12 atoms"),
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(help="Width of the network.", show_default="64; graph-dfm, joint: 96")
    ] = None,
    pair_hidden: Annotated[
        int | None,
        typer.Option(
            help="Whole molecules: width of the network for pairs.", show_default="48; graph-nvp: 128; mpgvae: 32"
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Rounds of message passing.", show_default="3; graph-dfm, joint: 5")
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Whole molecules: attention heads.", show_default="4")] = None,
    conditions: Annotated[
        str | None,
        typer.Option(help="graph-dfm: what samples can be asked for, of qed,logp,sa,mw.", show_default="none"),
    ] = None,
    latent: Annotated[
        int | None, typer.Option(help="mpgvae, graph-vae: numbers of the latent.", show_default="32")
    ] = None,
    matching: Annotated[
        str | None,
        typer.Option(
            help="mpgvae, graph-vae: which atom stands at which place, by canonical (order), max-pool or hungarian.",
            show_default="canonical",
        ),
    ] = None,
    kl_weight: Annotated[
        float | None,
        typer.Option(
            help="mpgvae, graph-vae: of the divergence from the prior; 1: the bound itself.", show_default="0.5"
        ),
    ] = None,
    kl_anneal_steps: Annotated[
        int | None,
        typer.Option(
            help="mpgvae, graph-vae: training steps over which that weight rises from 0.", show_default="1000"
        ),
    ] = None,
    max_atoms: Annotated[
        int | None, typer.Option(help="graph-vae: atoms of the largest molecule it can make.", show_default="9")
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of a label's point that goes to all labels.", show_default="0")
    ] = None,
    kinetic: Annotated[
        float | None,
        typer.Option(help="graph-cnf by likelihood: weight of the path's kinetic energy.", show_default="0"),
    ] = None,
    trained_end_time: Annotated[
        bool | None,
        typer.Option("--trained-end-time", help="graph-cnf by likelihood: learn how far the flow is followed."),
    ] = None,
    sde: Annotated[str | None, typer.Option(help="graph-sde: vp, subvp or ve.", show_default="vp")] = None,
    levels: Annotated[
        int | None, typer.Option(help="graph-ncsn: levels of noise.", show_default="10; joint: 20")
    ] = None,
    chain: Annotated[int | None, typer.Option(help="graph-ddpm: steps of the chain.", show_default="1000")] = None,
    schedule: Annotated[str | None, typer.Option(help="graph-ddpm: linear or cosine.", show_default="linear")] = None,
    prediction: Annotated[
        str | None, typer.Option(help="graph-ddpm: what the network is asked for, x0, epsilon or v.", show_default="x0")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    column: Column = None,
    device: Device = "cpu",
    config: Config = None,
) -> None:
    """Train a model on the training split of a data set; the folder always holds the best epoch so far.

    That is the one which finds held-out molecules likeliest (nats per atom, on the validation split), or of a model
    without a likelihood the one of the least loss there.

    With --start a trained model learns on, from the same molecules or from others of atoms that it knows. Its settings
    stay; sizes and shares of labels are taken from the molecules, as in any training.

    Ctrl-C keeps the last finished epoch, and --resume goes on from there to the same numbers.

    Examples:
      graphgen train -i qm9 -o runs/qm9 --epochs 36
      graphgen train -i mine.csv --column smiles -o runs/mine --hidden 128
      graphgen train -i qm9 -m graph-sde --sde ve -o runs/sde
      graphgen train -i qm9 -m graph-dfm -o runs/dfm --batch-size 512 --lr 2e-3
      graphgen train -i qm9 -m graph-nvp -o runs/nvp --lr 2e-3
      graphgen train -i qm9 -m mpgvae -o runs/vae --epochs 25
      graphgen train -i qm9 -m graph-sde --structure joint -o runs/joint --batch-size 512 --lr 2e-3
      graphgen train -i qm9 -m graph-dfm -o runs/asked --path absorbing --conditions qed,logp,sa,mw
      graphgen train -i mine.smi --start zinc250k -o runs/mine --epochs 5 --lr 5e-4
      graphgen train --config runs/mine/config.toml -o runs/again --seed 1
    """
    import torch

    import graphgen
    from graphgen import models
    from graphgen import train as workflow
    from graphgen.errors import GraphgenError
    from graphgen.likelihood import in_vocabulary
    from graphgen.metrics.properties import check, with_properties
    from graphgen.molecules.datasets import cache_folder

    check_device(device)
    names = [name.strip() for name in conditions.split(",")] if conditions else []
    check(names)
    given = context.params | {"conditions": names or None}
    chosen = {name: given[name] for name in _OF_THE_MODEL if given[name] is not None}
    if start is not None and (chosen or model is not None):
        raise GraphgenError(f"--start {start}: its model is made already; leave out {', '.join(_flags(chosen, model))}")
    settings = workflow.TrainSettings(epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, patience=patience)
    data, code = load_data(input, column, rejects_path(out))
    torch.manual_seed(seed)
    if start is None:
        network = models.make(model or "graph-cnf", data.vocabulary, **chosen)
    else:
        network = graphgen.load(start).network
        data, unknown = in_vocabulary(data, network.vocabulary)
        if unknown:
            log(
                f"[yellow]{len(unknown):,} molecules left out[/], with atoms that the model of {plain(start)} does not "
                f"know: {', '.join(sorted(set(unknown.values())))}"
            )
        names = network.settings.get("conditions", [])
    if names:
        data = with_properties(data, names, cache_folder())
    if not (out / workflow.LOG).exists():
        out.mkdir(parents=True, exist_ok=True)
        resolved: dict[str, Any] = {
            "model": network.name,
            **{name: network.settings.get(name) for name in _OF_THE_MODEL},
        }
        write_config(context, out, [data], None, **({} if start else resolved | {"conditions": conditions}))
    records = workflow.train(network, data, out, settings, resume, device)
    last, best = records[-1], min(records, key=lambda record: record.get("nats", record["valid"]))
    nats = f", {best['nats']:.4f} held-out nats per atom" if "nats" in best else ""
    log(
        f"trained {last['step']:,} steps in {last['seconds']:.0f} s; the best epoch is {best['epoch']}: loss "
        f"{best['train']:.4f} (train) {best['valid']:.4f} (valid){nats}; model in {plain(out)}"
    )
    raise typer.Exit(code)


def _flags(chosen: dict[str, object], model: str | None) -> list[str]:
    names = [*(["model"] if model else []), *chosen]
    return [f"--{name.replace('_', '-')}" for name in names]
