"""graphgen reconstruct"""

from __future__ import annotations

from typing import Annotated

import typer

from graphgen.cli.common import PART, BatchSize, Column, Device, Model, Seed, check_device, log, plain, positive


def reconstruct(
    model: Model,
    structures: Annotated[
        str, typer.Option(help=f"Which molecules: test, valid or train of the model's own data; or {PART}.")
    ] = "test",
    steps: Annotated[int, typer.Option(help="Steps of the solver, each way; a graph-nvp has none.")] = 20,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    column: Column = None,
    device: Device = "cpu",
) -> None:
    """Carry molecules to the model's latents and back, and count how many come back.

    A flow is invertible whatever it has learned: less than 100 % is the solver's error or rounding, and no merit is in
    100 %. Of a variational autoencoder it is the share of molecules, atoms and bonds in any order, that it tells apart
    by its mean latents.

    Examples:
      graphgen reconstruct qm9-cnf --structures nci
      graphgen reconstruct runs/vae --structures valid
    """
    import json

    import graphgen
    from graphgen import latent
    from graphgen.likelihood import in_vocabulary

    positive(steps=steps, batch_size=batch_size)
    check_device(device)
    trained = graphgen.load(model)
    molecules, whose = trained.skeletons(structures, column)
    known, others = in_vocabulary(molecules, trained.vocabulary)
    if others:
        log(f"{len(others):,} molecules of {plain(whose)} have atoms the model does not know, and are left out")
    found = latent.reconstruct(trained.network, known, seed, steps, batch_size, device)
    error = ""
    if found.largest_error is not None:
        error = f"; largest error of a coordinate {found.largest_error:.2g}"
    share = f"{100 * found.identical / found.molecules:.2f} %"
    log(f"{found.identical:,} of {found.molecules:,} ({share}) come back, molecules of {plain(whose)}{error}")
    print(json.dumps(vars(found)))
