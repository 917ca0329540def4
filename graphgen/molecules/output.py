"""Molecules to files: tables with a row for everything, or plain lists of the molecules alone."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from graphgen.errors import GraphgenError
from graphgen.extras import extra
from graphgen.files import atomic_write

TABLES = (".csv", ".parquet")
LISTS = (".smi", ".sdf")
Columns = Mapping[str, Sequence[Any]]


def kind_of(path: str | os.PathLike[str], kinds: Sequence[str] = (*TABLES, *LISTS)) -> str:
    """Which of ``kinds`` a file is by its name, whatever its case and whether or not ``.gz`` follows.

    Raises:
        GraphgenError: none of them, or a gzipped Parquet file (Parquet is compressed already).
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = "".join(suffixes[-2:-1] if packed else suffixes[-1:])
    if kind not in kinds or (packed and kind == ".parquet"):
        raise GraphgenError(f"{path}: cannot write a file of that name; let it end in {', '.join(kinds)}")
    if kind == ".parquet":
        extra("pyarrow", "tables")  # said before the work, not after it
    return kind


def write(path: str | os.PathLike[str], columns: Columns, name: str = "id", smiles: str = "SMILES") -> int:
    """Write molecules in the form the file's name asks for, whole or not at all.

    ``.csv`` and ``.parquet`` get every row and every column. ``.smi`` gets SMILES and name, ``.sdf`` a mol block
    with 2D coordinates, the name as title and the other columns as properties; both leave out the rows without
    a molecule. ``.gz`` may follow all but ``.parquet``.

    Args:
        columns: of equal length; None is an empty cell.
        name, smiles: the columns that lists take the name and the SMILES of a molecule from.

    Returns:
        How many rows the file does not hold.

    Raises:
        GraphgenError: another name, or no pyarrow for Parquet.
    """
    kind = kind_of(path)
    total = len(columns[smiles])
    with atomic_write(path) as temporary:
        if kind == ".parquet":
            arrow = extra("pyarrow", "tables")
            extra("pyarrow.parquet", "tables").write_table(arrow.table(dict(columns)), temporary)
            return 0
        with _text(temporary) as out:
            if kind == ".csv":
                writer = csv.writer(out, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
                return 0
            found = (_smi if kind == ".smi" else _sdf)(out, columns, name, smiles)
    return total - found


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return "" if value is None else value


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    if path.suffix.lower() != ".gz":
        with open(path, "w", newline="", encoding="utf-8") as out:
            yield out
        return
    # Neither name nor time go in: the same molecules are the same bytes.
    with (
        open(path, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as out,
    ):
        yield out


def _smi(out: TextIO, columns: Columns, name: str, smiles: str) -> int:
    lines = [f"{text} {i}\n" for text, i in zip(columns[smiles], columns[name], strict=True) if text]
    out.writelines(lines)
    return len(lines)


def _sdf(out: TextIO, columns: Columns, name: str, smiles: str) -> int:
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDepictor

    found = 0
    with rdBase.BlockLogs(), Chem.SDWriter(out) as writer:
        for row in zip(*columns.values(), strict=True):
            cells = dict(zip(columns, row, strict=True))
            mol = Chem.MolFromSmiles(cells[smiles]) if cells[smiles] else None
            if mol is None:
                continue
            rdDepictor.Compute2DCoords(mol)
            mol.SetProp("_Name", str(cells.pop(name)))
            for key, value in cells.items():
                if value is not None:
                    mol.SetProp(key, str(_cell(value)))
            writer.write(mol)
            found += 1
    return found
