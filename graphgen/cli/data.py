"""graphgen data"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from graphgen.cli.common import Column, load_data, log, plain, rejects_path, show


def data(
    name: Annotated[str, typer.Argument(help="nci, qm9, zinc250k, or a .smi/.csv/.sdf(.gz) file.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="CSV to write: row, SMILES as encoded, split.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a named set first (checked against its SHA-256).")
    ] = False,
    column: Column = None,
) -> None:
    """Encode a data set (once; the result is cached) and say what is in it.

    Example: graphgen data my.csv --column smiles -o clean.csv
    """
    import csv

    from graphgen.files import atomic_write
    from graphgen.molecules import datasets
    from graphgen.molecules.encoded import SPLITS

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
        with atomic_write(out) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "smiles", "split"])
            writer.writerows([i, encoded.smiles(i), member[i]] for i in range(len(encoded)))
        log(f"{len(encoded):,} molecules: {plain(out)}")
    raise typer.Exit(code)
