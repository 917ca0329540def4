"""graphgen likelihood"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import (
    EXIT_PARTIAL,
    PART,
    BatchSize,
    Column,
    Device,
    Model,
    Seed,
    check_device,
    load_data,
    log,
    plain,
    positive,
    rejects_path,
)
from graphgen.cli.config import Config, write_config


def likelihood(
    context: typer.Context,
    model: Model,
    input: Annotated[str, typer.Option("-i", "--input", help=f"Molecules: {PART}.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Table to write: .csv (.gz too) or .parquet.")],
    draws: Annotated[int, typer.Option(help="Draws to average; the error falls with their root.")] = 4,
    steps: Annotated[
        int,
        typer.Option(help="Steps of the solver, of four evaluations each; graph-dfm: of one each; graph-nvp has none."),
    ] = 20,
    orders: Annotated[
        int,
        typer.Option(
            help="Whole molecules: also compare so many random orders of the atoms; the deviation over them is the "
            "column NLL_orders, which of a model that does not look at the order is the estimate's error."
        ),
    ] = 0,
    trace: Annotated[
        str, typer.Option(help="hutchinson (one random probe a draw) or exact (slow for large molecules).")
    ] = "hutchinson",
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    column: Column = None,
    device: Device = "cpu",
    config: Config = None,
) -> None:
    """Say how probable a model finds molecules: a row for each with NLL, minus its log-probability in nats.

    That is the probability of the atoms given the bonds, or of a model of whole molecules that of atoms and bonds
    together in the molecule's order of atoms (mpgvae, graph-vae: in any order); the NLL is an upper bound, estimated
    with the standard error NLL_stderr. Molecules that the model cannot make are rejected with the reason.

    Examples:
      graphgen likelihood runs/qm9 -i mine.smi -o nll.csv
      graphgen likelihood runs/qm9 -i qm9:test --draws 16 -o nll.parquet
      graphgen likelihood runs/nvp -i qm9:test --orders 8 -o nll.csv
    """
    import graphgen
    from graphgen.errors import GraphgenError
    from graphgen.likelihood import in_vocabulary, over_orders
    from graphgen.molecules import output, records

    positive(draws=draws, steps=steps, batch_size=batch_size)
    if orders < 0 or orders == 1:
        raise GraphgenError(f"--orders must be 2 or more to have a deviation, or 0 for none, not {orders}")
    if trace not in ("hutchinson", "exact"):
        raise GraphgenError(f"--trace {trace}: choose hutchinson or exact")
    output.kind_of(out, output.TABLES)
    check_device(device)
    trained = graphgen.load(model)
    if orders and not trained.network.samples_bonds:
        raise GraphgenError(
            f"--orders is for models of whole molecules; the order changes nothing for a {trained.network.name}"
        )
    data, code = load_data(input, column, rejects_path(out))
    places = _places(input, column, data)
    known, others = in_vocabulary(data, trained.vocabulary)
    refused = {i: f"atom type the model does not know: {name}" for i, name in others.items()}
    if trained.network.samples_bonds:
        of_size = trained.network.log_prob_of_sizes(data.sizes)
        for i in of_size.isneginf().nonzero().flatten().tolist():
            refused.setdefault(i, f"size the model never makes: {int(data.sizes[i])} atoms")
        known, _ = in_vocabulary(data.take([i for i in range(len(data)) if i not in refused]), trained.vocabulary)
    if refused:
        code = EXIT_PARTIAL
        unknown = [
            records.Reject(places[int(data.rows[i])][0], reason, data.smiles(i))
            for i, reason in sorted(refused.items())
        ]
        records.write_rejects(rejects_path(out), [*data.rejects, *unknown])
        log(f"[yellow]{len(refused):,} molecules the model cannot make[/]; in {plain(rejects_path(out))}")
    found = trained.likelihood(known, seed, draws, batch_size, steps, device, trace=trace)
    way = _way(trained.network, steps, trace)
    columns = {
        "SMILES": [known.smiles(i) for i in range(len(known))],
        "NLL": (-found.value).tolist(),
        "NLL_stderr": found.stderr.tolist(),
        "method": [f"{way}{draws} draws"] * len(known),
        "evaluations": found.evaluations.tolist(),
        "heavy_atoms": found.atoms.tolist(),
        "where": [places[row][0] for row in known.rows.tolist()],
        "name": [places[row][1] or None for row in known.rows.tolist()],
    }
    if orders:
        spread = over_orders(trained.network, known, orders, seed, draws, batch_size, steps, device).std(1)
        columns["NLL_orders"] = spread.tolist()
        log(f"deviation over {orders} orders of the atoms: {float(spread.mean()):.4f} nats on average")
    output.write(out, columns)
    write_config(context, out, [data], trained.folder)
    mean = -float(found.value.sum() / found.atoms.sum())
    log(f"{len(known):,} molecules, {mean:.4f} nats per atom on average: {plain(out)}")
    raise typer.Exit(code)


def _way(model, steps: int, trace: str) -> str:
    """How the estimate is made, but for the draws."""
    if not model.samples_bonds:
        return f"rk4 {steps} steps, {trace} trace, "
    return f"{steps} times, " if "steps" in inspect.signature(model.log_prob).parameters else ""


def _places(input: str, column: str | None, data) -> list[tuple[str, str]]:
    """Where each molecule of a data set stood, and its name."""
    from graphgen.molecules.datasets import SOURCES, split_name
    from graphgen.molecules.records import Record, read_records

    name, _ = split_name(input)
    if name in SOURCES:
        return [(f"{name}:{row}", "") for row in range(int(data.rows.max()) + 1)]
    rejected = {reject.where for reject in data.rejects}
    found = (item for item in read_records(name, column) if isinstance(item, Record))
    return [(item.where, item.name) for item in found if item.where not in rejected]
