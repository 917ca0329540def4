"""Molecules as texts, one record at a time, from whatever file a user has.

Every record of a file comes out exactly once: as a :class:`Record`, or as a :class:`Reject` that says why.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write


class Record(NamedTuple):
    """One molecule of a file, not parsed yet.

    ``where`` is ``file name:line`` (lines count from 1), ``form`` is ``"smiles"`` or ``"molblock"`` as
    :func:`graphgen.molecules.codec.parse` takes it.
    """

    where: str
    text: str
    name: str = ""
    form: str = "smiles"


class Reject(NamedTuple):
    """One record that could not be used, and why."""

    where: str
    reason: str
    text: str


def read_records(path: str | os.PathLike[str], column: str | None = None) -> Iterator[Record | Reject]:
    """Read the molecules of a SMILES, CSV, TSV, SD or Parquet file, gzipped or not.

    The ending of the name says which: ``.smi .smiles .txt``, ``.csv .tsv``, ``.sdf``, each perhaps with
    ``.gz``, or ``.parquet`` (extra ``tables``), whose rows count from 1 in the place of lines. UTF-8, UTF-16 with
    a byte order mark and Latin-1 are read, with any kind of line ending; blank lines are no records. A SMILES file
    has lines ``SMILES[whitespace]name``, and a first line that names a column is skipped. A CSV file has a header;
    ``column`` names the one with SMILES and is needed only where none, or more than one, is called so.

    Raises:
        GraphgenError: no such file, a name with another ending, a damaged archive, no record at all, no such
            column.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind in (".smi", ".smiles", ".txt"):
        found = _smiles_records(path)
    elif kind in (".csv", ".tsv"):
        found = _table_records(path, column)
    elif kind == ".sdf":
        found = _sd_records(path)
    elif kind == ".parquet" and path.suffix.lower() == kind:
        found = _parquet_records(path, column)
    else:
        raise GraphgenError(f"{path}: unknown format; the name must end in .smi, .csv, .sdf (.gz too) or .parquet")
    if column is not None and kind not in (".csv", ".tsv", ".parquet"):
        raise GraphgenError(
            f"{path}: only .csv and .tsv files have columns (and .parquet); leave out column {column!r}"
        )
    first = next(found, None)
    if first is None:
        raise GraphgenError(f"{path}: the file holds no molecules; check that it is the file you meant")
    return chain([first], found)


def write_rejects(path: str | os.PathLike[str], rejects: Iterable[Reject]) -> None:
    """Write rejects as CSV with the columns ``where``, ``reason`` and ``input``."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("where", "reason", "input"))
        writer.writerows(rejects)


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading bytes, unpacked if its name ends in ``.gz``.

    Raises:
        GraphgenError: it cannot be opened.
    """
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        return opener(path, "rb")
    except OSError as error:
        raise GraphgenError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def damaged(path: Path, error: Exception) -> GraphgenError:
    """The error for a file whose bytes cannot be read to the end."""
    return GraphgenError(f"{path}: cannot be read to the end ({error}); copy or download it again")


UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading an :func:`open_plain` file can raise."""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_plain(path) as file:
        try:
            start = file.read(2)
            file.seek(0)
            encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            errors = "replace" if encoding == "utf-16" else "surrogateescape"
            for number, line in enumerate(io.TextIOWrapper(file, encoding, errors), start=1):
                yield number, _printable(line.rstrip("\n"))
        except UNREADABLE as error:
            raise damaged(path, error) from None


def _printable(line: str) -> str:
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            line = line.encode("utf-8", "surrogateescape").decode("latin-1")
    # csv before Python 3.11 stops at NUL, and RDKit reads no further: show it as a symbol that no SMILES has.
    return line.replace("\0", "\u2400")


def _smiles_records(path: Path) -> Iterator[Record | Reject]:
    first = True
    for number, line in _lines(path):
        text, *name = line.split(None, 1) or [""]
        # No SMILES can contain this word, so a header is never mistaken for a molecule or the reverse.
        if text and not (first and "smiles" in text.lower()):
            yield Record(f"{path.name}:{number}", text, name[0].strip() if name else "")
        first = first and not text


def _table_records(path: Path, column: str | None) -> Iterator[Record | Reject]:
    lines = _Lookahead((number, line) for number, line in _lines(path) if line.strip())
    if (head := lines.pop()) is None:
        return
    delimiter = max(",\t;", key=head[1].count)
    try:
        header = [name.strip() for name in next(csv.reader([head[1]], delimiter=delimiter))]
    except csv.Error as error:
        raise GraphgenError(f"{path}: the first line is not a CSV header ({error})") from None
    chosen = _column(path, header, column)
    names = [i for i, name in enumerate(header) if name.lower() in ("name", "id", "title") and i != chosen]
    while (line := lines.pop()) is not None:
        where = f"{path.name}:{line[0]}"
        cells = _row(line[1], lines, delimiter, len(header))
        if isinstance(cells, str):
            yield Reject(where, cells, line[1])
        else:
            yield Record(where, cells[chosen], cells[names[0]] if names else "")


_ROW_LINES = 20
"""How many lines one quoted row may span: enough for notes, too few for a stray quote to swallow a file."""


def _row(line: str, lines: _Lookahead, delimiter: str, width: int) -> list[str] | str:
    """The cells of the row that begins with ``line``, or what is wrong; takes any further lines it has."""
    problem = ""
    for extra in range(_ROW_LINES):
        try:
            cells = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error as error:
            problem = problem or f"broken CSV row: {error}"
        else:
            while len(cells) > width and not cells[-1].strip():
                cells.pop()
            if len(cells) == width:
                lines.drop(extra)
                return [cell.strip() for cell in cells]
            return problem or f"broken CSV row: {len(cells)} cells where the header has {width}"
        if (following := lines.peek(extra)) is None:
            break
        line += "\n" + following[1]
    return problem


class _Lookahead:
    """The lines of a file, of which the next few can be looked at before they are taken."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._ahead: deque[tuple[int, str]] = deque()

    def pop(self) -> tuple[int, str] | None:
        return self._ahead.popleft() if self._ahead else next(self._lines, None)

    def peek(self, position: int) -> tuple[int, str] | None:
        while len(self._ahead) <= position:
            if (line := next(self._lines, None)) is None:
                return None
            self._ahead.append(line)
        return self._ahead[position]

    def drop(self, count: int) -> None:
        for _ in range(count):
            self._ahead.popleft()


def _column(path: Path, header: list[str], column: str | None) -> int:
    found = ", ".join(header)
    if column is not None:
        if column in header:
            return header.index(column)
        raise GraphgenError(f"{path}: no column {column!r}; the columns are {found}")
    lower = [name.lower() for name in header]
    candidates = [i for i, name in enumerate(lower) if "smiles" in name]
    if "smiles" in lower:
        return lower.index("smiles")
    if len(candidates) == 1:
        return candidates[0]
    which = "more than one column looks like SMILES" if candidates else "no column is called smiles"
    raise GraphgenError(f"{path}: {which}; name the one to use, the columns are {found}")


def _sd_records(path: Path) -> Iterator[Record | Reject]:
    start, block = 1, []
    for number, line in _lines(path):
        if line.rstrip() != "$$$$":
            block.append(line)
            continue
        yield _sd_record(path, start, block)
        start, block = number + 1, []
    if any(line.strip() for line in block):
        yield _sd_record(path, start, block)


def _sd_record(path: Path, start: int, block: list[str]) -> Record:
    name = block[0].strip() if block else ""
    return Record(f"{path.name}:{start}", "\n".join(block) + "\n", name, "molblock")


def _parquet_records(path: Path, column: str | None) -> Iterator[Record | Reject]:
    from graphgen.molecules.parquet import parquet_columns, parquet_rows

    header = parquet_columns(path)
    chosen = header[_column(path, header, column)]
    names = [name for name in header if name.lower() in ("name", "id", "title") and name != chosen][:1]
    for number, row in enumerate(parquet_rows(path, [chosen, *names]), start=1):
        text, where = row[chosen], f"{path.name}:{number}"
        label = "" if not names or row[names[0]] is None else str(row[names[0]])
        if text is not None and not isinstance(text, str):
            yield Reject(where, f"not a text: {type(text).__name__}", _printable(str(text)))
        else:
            yield Record(where, _printable(text or "").strip(), _printable(label))
