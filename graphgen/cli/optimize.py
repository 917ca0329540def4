"""graphgen optimize"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import (
    PART,
    BatchSize,
    Column,
    Device,
    Model,
    Seed,
    check_device,
    log,
    plain,
    positive,
)
from graphgen.cli.config import Config, write_config

_SHOWN = 6


def optimize(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Table to write: .csv (.gz too) or .parquet.")],
    property: Annotated[str, typer.Option("--property", help="What to raise: qed or logp.")] = "qed",
    structures: Annotated[
        str,
        typer.Option(help=f"Which molecules to better: test, valid or train of the model's own data; or {PART}."),
    ] = "test",
    n: Annotated[int, typer.Option("-n", help="At most so many of them.")] = 200,
    learn: Annotated[int, typer.Option(help="Molecules of the training split to learn the direction from.")] = 5000,
    picture: Annotated[
        Path | None,
        typer.Option(help="Before and after of those bettered most, .svg.", show_default="beside the table"),
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 256,
    column: Column = None,
    device: Device = "cpu",
    config: Config = None,
) -> None:
    """Better a property of molecules on their own bonds, along a linear map of the model's latents.

    The best of four steps up the map, and beside it (by_chance) the best of four steps of the same lengths in a random
    direction, which is what trying alone brings. The log says how much of the property the map explains.

    Example: graphgen optimize qm9-cnf --property qed --structures qm9:test -n 100 -o better.csv
    """
    from dataclasses import asdict

    import torch

    import graphgen
    from graphgen import optimize as workflow
    from graphgen.errors import GraphgenError
    from graphgen.likelihood import in_vocabulary
    from graphgen.molecules import output

    positive(n=n, learn=learn, batch_size=batch_size)
    output.kind_of(out, output.TABLES)
    picture = picture or out.with_name(out.name + ".svg")
    if picture.suffix.lower() != ".svg":
        raise GraphgenError(f"{picture}: the picture is an SVG; let the name end in .svg")
    if property not in workflow.PROPERTIES:
        raise GraphgenError(f"--property {property}: choose one of {', '.join(workflow.PROPERTIES)}")
    check_device(device)
    measure = workflow.PROPERTIES[property]
    trained = graphgen.load(model)
    molecules, whose = trained.skeletons(structures, column)
    molecules, _ = in_vocabulary(molecules.take(torch.arange(min(n, len(molecules)))), trained.vocabulary)
    learning, _ = trained.skeletons("train")
    learning, _ = in_vocabulary(learning.take(torch.arange(min(learn, len(learning)))), trained.vocabulary)
    log(f"learning {property} from {len(learning):,} training molecules; then {len(molecules):,} of {plain(whose)}")
    up = workflow.fit(trained.network, learning, [measure(learning.smiles(k)) for k in range(len(learning))], seed)
    found = workflow.optimize(trained.network, molecules, up, measure, seed=seed, batch_size=batch_size, device=device)
    rows = [asdict(one) for one in found]
    output.write(out, {"SMILES": [one.after for one in found], **{key: [row[key] for row in rows] for key in rows[0]}})
    write_config(context, out, [molecules], trained.folder)
    _draw(found, property, picture)
    means = (sum(row[key] for row in rows) / len(rows) for key in ("value_before", "value_after", "by_chance"))
    before, after, chance = means
    log(
        f"{property} of {len(rows):,} molecules: {before:.3f} before, {after:.3f} after, {chance:.3f} by chance; the "
        f"latents explain {100 * up.r2:.0f} % of what the bonds do not (r2 {up.r2:.2f}); {plain(out)}, {plain(picture)}"
    )


def _draw(found: list, property: str, picture: Path) -> None:
    from rdkit import Chem

    from graphgen.files import atomic_write
    from graphgen.report.grid import grid_svg, prepared

    most = sorted(found, key=lambda one: one.value_before - one.value_after)[:_SHOWN]
    mols, legends = [], []
    for one in most:
        for when, smiles, value in (("before", one.before, one.value_before), ("after", one.after, one.value_after)):
            mols.append(prepared(Chem.MolFromSmiles(smiles)))
            legends.append(f"{when}: {property} {value:.3f}")
    with atomic_write(picture) as temporary:
        temporary.write_text(grid_svg(mols, legends, 4), encoding="utf-8")
