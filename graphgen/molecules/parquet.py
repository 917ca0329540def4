"""Tables in Parquet files; the only module that needs pyarrow to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphgen.errors import GraphgenError
from graphgen.extras import extra


def parquet_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The names of the columns, and the rows with their number, from 1, without holding them all.

    A cell is the text of its value, empty for none.

    Raises:
        GraphgenError: no pyarrow, no such file, or a damaged one.
    """
    parquet = extra("pyarrow.parquet", "tables")
    with _readable(path):
        header = list(parquet.read_schema(path).names)

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 0
        with _readable(path), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, ["" if cell is None else str(cell) for cell in row]

    return header, rows()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    arrow = extra("pyarrow", "tables")
    try:
        yield
    except (OSError, arrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise GraphgenError(f"{path}: cannot be read as Parquet ({reason}); copy or download it again") from None
