"""graphgen interpolate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphgen.cli.common import Model, Seed, log, plain, positive


def interpolate(
    model: Model,
    start: Annotated[str, typer.Argument(help="SMILES of the first molecule.")],
    end: Annotated[str, typer.Argument(help="SMILES of the last one; for a graph-cnf it must have the same bonds.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write, .svg.")],
    points: Annotated[int, typer.Option(help="Molecules on the way, both ends included.")] = 8,
    steps: Annotated[int, typer.Option(help="Steps of the solver; a graph-nvp has none.")] = 20,
    seed: Seed = 0,
) -> None:
    """Walk from one molecule to another through the model's latents, as a picture; their SMILES are printed.

    Both are carried back to noise, joined by a great circle, and what lies on it is carried forth again. Labels that
    RDKit does not take for a molecule are drawn as they are, and an empty line is printed. A graph-cnf keeps the bonds;
    a graph-nvp goes between any two molecules, and what lies between may be none.

    Examples:
      graphgen interpolate qm9-cnf CC1CCCCC1O NC1CCCCC1F -o way.svg
      graphgen interpolate runs/nvp CC1CCCCC1O OCC1CC=CO1 -o way.svg
    """
    from rdkit.Chem import Mol

    import graphgen
    from graphgen.errors import GraphgenError
    from graphgen.files import atomic_write
    from graphgen.latent import between
    from graphgen.molecules.codec import canonical_smiles, decode
    from graphgen.report.grid import grid_svg, prepared

    positive(steps=steps)
    if points < 2:
        raise GraphgenError(f"--points must be 2 or more, not {points}")
    if out.suffix.lower() != ".svg":
        raise GraphgenError(f"{out}: the picture is an SVG; let the name end in .svg")
    trained = graphgen.load(model)
    way = between(trained.network, start, end, points, seed, steps)
    drawn: list[Mol] = []
    legends = []
    for molecule in way:
        mol = decode(*molecule)
        drawn.append(prepared(mol, drawn[0] if drawn and molecule.bonds == way[0].bonds else None))
        try:
            smiles = canonical_smiles(mol)
        except ValueError:
            smiles = ""
        legends.append(smiles or "no molecule")
        print(smiles)
    with atomic_write(out) as temporary:
        temporary.write_text(grid_svg(drawn, legends, min(points, 4)), encoding="utf-8")
    log(f"{points} molecules, {len(set(legends))} distinct, in {plain(out)}")
