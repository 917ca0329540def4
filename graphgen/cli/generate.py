"""graphgen generate"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from graphgen.cli.common import (
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
    show,
)
from graphgen.cli.config import Config, write_config

if TYPE_CHECKING:
    from graphgen.generated import Generated
    from graphgen.trained import TrainedModel

_NEAR = 0.5
_OF_THE_SAMPLER = (
    "steps",
    "temperature",
    "sampler",
    "corrections",
    "snr",
    "eta",
    "epsilon",
    "denoise",
    "distortion",
    "flaws",
    "scaffold",
    "guidance",
)


def generate(
    context: typer.Context,
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help=".csv or .parquet for every attempt, .smi or .sdf for molecules alone (.gz too)."
        ),
    ],
    n: Annotated[int, typer.Option("-n", help="Rows to write.")] = 1000,
    structures: Annotated[
        str | None,
        typer.Option(
            help=f"Whose bonds to use: test, valid or train of the model's own data; {PART}; or the folder of a model "
            "of whole molecules, which samples them. Such a model itself takes none.",
            show_default="test",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.", show_default="the model's own")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="0 takes the likeliest label of every atom; 1 draws by the model's own law. graph-nvp: of its noise.",
            show_default="0; graph-dfm, graph-nvp: 1",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="graph-sde: reverse-diffusion, euler, ancestral or ode; graph-ddpm: ancestral or ddim.",
            show_default="the first",
        ),
    ] = None,
    corrections: Annotated[
        int | None, typer.Option(help="graph-sde: Langevin steps before each step.", show_default="0")
    ] = None,
    snr: Annotated[float | None, typer.Option(help="graph-sde: of the corrections.", show_default="0.16")] = None,
    eta: Annotated[
        float | None,
        typer.Option(help="graph-ddpm: noise of ddim, 0 to 1; graph-dfm: rate of jumps that renew.", show_default="0"),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="graph-ncsn: size of a step on the last level.", show_default="0.2 of its variance"),
    ] = None,
    denoise: Annotated[
        bool | None,
        typer.Option(
            "--denoise/--no-denoise", help="graph-ncsn: end by taking the last noise out.", show_default="yes"
        ),
    ] = None,
    distortion: Annotated[
        str | None, typer.Option(help="graph-dfm: its clock, geometric, polydec or identity.", show_default="geometric")
    ] = None,
    flaws: Annotated[
        float | None,
        typer.Option(
            help="graph-dfm: the network is asked as if at least so many of a molecule's bonds were noise; 0: as is.",
            show_default="0.27",
        ),
    ] = None,
    scaffold: Annotated[
        str | None,
        typer.Option(
            metavar="SMILES", help="graph-dfm: what every molecule contains; fragments by dots are joined as it falls."
        ),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(help="graph-dfm trained with --conditions: what to ask for, such as qed=0.9,logp=2."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="graph-dfm: how much the condition weighs; above 1 more than asked.", show_default="1"),
    ] = None,
    candidates: Annotated[int, typer.Option(help="Draw so many for each row and keep one.")] = 1,
    choose: Annotated[
        str, typer.Option(help="Of the candidates: likeliest, weighted (by probability) or first.")
    ] = "likeliest",
    reject: Annotated[
        bool, typer.Option("--reject", help="Only candidates that are molecules may be chosen; the log says how many.")
    ] = False,
    nll_draws: Annotated[int, typer.Option(help="Draws for the column NLL; 0 leaves it out and halves the time.")] = 4,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    column: Column = None,
    device: Device = "cpu",
    config: Config = None,
) -> None:
    """Sample atoms on the bonds of real molecules (by default held-out ones: the test split), or whole molecules.

    Which of the two is the model's kind: graph-dfm, graph-nvp, mpgvae, graph-vae and those trained with --structure
    joint draw atoms and bonds, as they are, with no repair.

    A table gets n attempts, failures included with their reason; a list gets n molecules, and the log says how many
    attempts that took. NLL is minus the model's log-probability of the atoms given the bonds, in nats; of a row chosen
    among candidates it is too small by what luck adds.

    Examples:
      graphgen generate qm9-cnf -n 1000 -o out.smi
      graphgen generate runs/qm9 -n 500 -o out.sdf.gz --structures mine.smi --seed 7
      graphgen generate runs/qm9 -n 1000 -o out.csv --candidates 4 --reject
      graphgen generate runs/dfm -n 100 -o pyridines.csv --scaffold c1ccncc1
      graphgen generate runs/asked -n 1000 -o drugs.csv --condition qed=0.9,logp=2 --guidance 2
      graphgen generate --config out.csv.config.toml
    """
    import graphgen
    from graphgen.candidates import Candidates
    from graphgen.errors import GraphgenError
    from graphgen.metrics import properties
    from graphgen.molecules import output
    from graphgen.molecules.encoded import SPLITS, EncodedMolecules
    from graphgen.sampled import is_model, sampled

    positive(n=n, batch_size=batch_size, **({} if steps is None else {"steps": steps}))
    if nll_draws < 0:
        raise GraphgenError(f"--nll-draws must be 0 or more, not {nll_draws}")
    if temperature is not None and not 0 <= temperature < math.inf:
        raise GraphgenError(f"--temperature must be 0 or more, not {temperature}")
    choice = Candidates(candidates, choose, reject)
    alone = output.kind_of(out) in output.LISTS
    check_device(device)
    trained = graphgen.load(model)
    skeletons: EncodedMolecules | None = None
    code = 0
    if trained.network.samples_bonds:
        if structures is not None or column is not None or choice != Candidates():
            raise GraphgenError(
                f"a {trained.network.name} makes whole molecules, one a row: leave out --structures, --column, "
                "--candidates, --choose and --reject"
            )
        log("atoms and bonds are sampled; NLL is left out for whole molecules, `graphgen likelihood` estimates it")
    else:
        structures = structures or "test"
        if structures in SPLITS:
            skeletons, whose = trained.skeletons(structures)
        elif is_model(structures):
            skeletons = sampled(graphgen.load(structures), n, seed, device)
            whose = f"{n:,} {skeletons.name}"
        else:
            skeletons, code = load_data(structures, column, rejects_path(out))
            whose = f"{structures} ({len(skeletons):,} molecules)"
        log(f"bonds are those of {plain(whose)}; atoms are sampled")
    wanted = None if condition is None else properties.asked(condition)
    asked = {name: context.params[name] for name in _OF_THE_SAMPLER} | {"condition": wanted}
    result = trained.generate(
        n,
        seed,
        skeletons,
        batch_size=batch_size,
        nll_draws=nll_draws,
        until_molecules=alone,
        device=device,
        candidates=None if trained.network.samples_bonds else choice,
        **{name: value for name, value in asked.items() if value is not None},
    )
    result.save(out)
    write_config(context, out, [] if skeletons is None else [skeletons], trained.folder, structures=structures)
    failed = sum(smiles is None for smiles in result.smiles)
    accepted = ""
    if result.accepted is not None:
        share = float(result.accepted.sum()) / (len(result) * candidates)
        accepted = f"{100 * share:.2f} % of {len(result) * candidates:,} candidates accepted; "
    times = ""
    if result.seconds is not None:
        times = f"; {result.seconds[0]:.1f} s in the model, {result.seconds[1]:.1f} s to read its molecules"
    log(
        f"{len(result):,} attempts, {len(result) - failed:,} molecules, {failed:,} failures; {accepted}"
        f"{n:,} rows in {plain(out)}{times}"
    )
    if wanted is not None:
        show(_achieved(trained, result, wanted))
    raise typer.Exit(code)


def _achieved(trained: TrainedModel, made: Generated, wanted: dict[str, float]) -> Table:
    """What was asked beside what the molecules have, and beside what those have that the model was trained on."""
    from graphgen.errors import GraphgenError
    from graphgen.metrics.properties import PROPERTIES, Achieved, measured, with_properties
    from graphgen.molecules.datasets import cache_folder

    names = list(PROPERTIES)
    found = measured([text for text in made.smiles if text], progress=False)
    try:
        learnt = with_properties(trained.data(), names, cache_folder()).split("train").property_values()
    except GraphgenError:
        learnt = None
    known = trained.network.conditions
    table = Table("property", "asked", "within", "molecules", "generated", "near", "training", "near", box=None)
    for name, value in wanted.items():
        at, column = known.names.index(name), names.index(name)
        tolerance = _NEAR * float(known.deviation[at])
        now = Achieved.of(found[:, column], value, tolerance)
        before = None if learnt is None else Achieved.of(learnt[:, column], value, tolerance)
        table.add_row(
            name,
            f"{value:g}",
            f"±{tolerance:.3g}",
            f"{now.molecules:,}",
            f"{now.mean:.3f} ± {now.deviation:.3f}",
            f"{100 * now.near:.1f} %",
            f"{float(known.mean[at]):.3f} ± {float(known.deviation[at]):.3f}",
            "not here" if before is None else f"{100 * before.near:.1f} %",
        )
    table.caption = f"mean ± deviation; near: within {_NEAR:g} of the training data's deviations of what was asked"
    table.caption_justify = "left"
    return table
