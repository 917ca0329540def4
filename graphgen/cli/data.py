"""graphgen data"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from graphgen.cli.common import MOLECULES, Column, load_data, log, plain, rejects_path, show
from graphgen.cli.config import Config, write_config


def data(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"Molecules: {MOLECULES}; or moses-filters, with --download.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File to write: .csv (.gz), .parquet, .smi or .sdf."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch what is named first (checked against its SHA-256).")
    ] = False,
    column: Column = None,
    config: Config = None,
) -> None:
    """Encode a data set (once; the result is cached) and say what is in it.

    What is written holds the molecules as they are encoded, with their split; rows that cannot be encoded go to
    <out>.rejects.csv with file, line (row of a .parquet) and reason.

    Examples:
      graphgen data my.csv --column smiles -o clean.csv
      graphgen data qm9 --download
      graphgen data moses-filters --download
    """
    from graphgen.errors import GraphgenError
    from graphgen.molecules import datasets, output
    from graphgen.molecules.encoded import SPLITS

    if out is not None:
        output.kind_of(out)
    if name in datasets.FILES:
        if not download:
            raise GraphgenError(f"{name}: these are files for a metric, not molecules; add --download to fetch them")
        for path in datasets.download_files(name):
            log(f"{plain(name)}: {plain(path)}")
        return
    if download:
        log(f"{plain(name)}: {plain(datasets.download(name))}")
    encoded, code = load_data(name, column, None if out is None else rejects_path(out))
    report = encoded.report
    table = Table("", "", title=plain(encoded.name), title_justify="left", show_header=False, box=None)
    table.add_row("rows read", f"{report['rows']:,}")
    table.add_row(
        "encoded, round trip exact",
        f"{report['encoded']:,} ({100 * report['encoded'] / report['rows']:.4f} %)",
    )
    for reason, count in report["rejected"].items():
        table.add_row(f"  rejected: {plain(reason)}", f"{count:,}")
    table.add_row(
        "atoms per molecule",
        f"{int(encoded.sizes.min())} to {int(encoded.sizes.max())}, mean {encoded.sizes.double().mean():.2f}",
    )
    table.add_row("atom types", " ".join(encoded.vocabulary.names))
    for split in SPLITS:
        table.add_row(f"split {split}", f"{len(encoded.split(split)):,}")
    table.add_row("dropped from every molecule", "stereo, isotopes, explicit hydrogens")
    show(table)
    if out is not None:
        member = {int(row): split for split in SPLITS for row in encoded.split(split).rows}
        rows = range(len(encoded))
        columns: output.Columns = {
            "row": rows,
            "smiles": [encoded.smiles(i) for i in rows],
            "split": [member[i] for i in rows],
        }
        output.write(out, columns, "row", "smiles")
        write_config(context, out, [encoded])
        log(f"{len(encoded):,} molecules: {plain(out)}")
    raise typer.Exit(code)
