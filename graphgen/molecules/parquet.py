"""Molecules from Parquet files; the only module that needs pyarrow to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from graphgen.errors import GraphgenError
from graphgen.extras import extra


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dictionaries, in order and without holding them all.

    Raises:
        GraphgenError: no pyarrow, no such file, or a damaged one.
    """
    arrow, parquet = extra("pyarrow", "tables"), extra("pyarrow.parquet", "tables")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except (OSError, arrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise GraphgenError(f"{path}: cannot be read as Parquet ({reason}); copy or download it again") from None


def parquet_columns(path: Path) -> list[str]:
    """The names of its columns.

    Raises:
        GraphgenError: as :func:`parquet_rows`.
    """
    arrow, parquet = extra("pyarrow", "tables"), extra("pyarrow.parquet", "tables")
    try:
        return list(parquet.read_schema(path).names)
    except (OSError, arrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise GraphgenError(f"{path}: cannot be read as Parquet ({reason}); copy or download it again") from None
