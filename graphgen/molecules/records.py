"""Molecules as texts, one record at a time, from whatever file a user has.

Every record of a file comes out exactly once: as a :class:`Record`, or as a :class:`Reject` that says why.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write

READER_VERSION = 2
"""Of the rules below; raise it whenever the same file could give other records or rejects."""


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

    @classmethod
    def of(cls, where: str, reason: str, text: str) -> Reject:
        """A reject whose text is cut, and says so, where readers of CSV would refuse a cell of its length."""
        if len(text) > _LONGEST_SHOWN:
            text = f"{text[:_LONGEST_SHOWN]} ... (cut, {len(text):,} characters)"
        return cls(where, reason, text)


_LONGEST_SHOWN = 100_000


def read_records(path: str | os.PathLike[str], column: str | None = None) -> Iterator[Record | Reject]:
    """Read the molecules of a SMILES, CSV, TSV or SD file, gzipped or not.

    The ending of the name says which: ``.smi .smiles .txt``, ``.csv .tsv``, ``.sdf``, each perhaps with
    ``.gz``. UTF-8, UTF-16 and Latin-1 are read, with any kind of line ending; blank lines are no records. A
    SMILES file has lines ``SMILES[whitespace]name``, and a first line that names a column is skipped; a line
    that begins with a tab has no SMILES. A table has a header (:func:`read_table`); ``column`` names the one
    with SMILES and is needed only where none, or more than one, is called so.

    Raises:
        GraphgenError: no such file, a name with another ending, a damaged archive, no record at all, no such
            column or more than one.
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
    else:
        raise GraphgenError(f"{path}: unknown format; the name must end in .smi, .csv or .sdf (.gz too)")
    if column is not None and kind not in (".csv", ".tsv"):
        raise GraphgenError(f"{path}: only .csv and .tsv files have columns; leave out column {column!r}")
    first = next(found, None)
    if first is None:
        raise _without_molecules(path)
    return chain([first], found)


class Row(NamedTuple):
    """The cells of one row of a table, stripped of white space; ``where`` is as in :class:`Record`."""

    where: str
    cells: list[str]


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the name ends in ``.csv`` or ``.tsv``, perhaps with ``.gz``."""
    return Path(path).name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def read_table(path: str | os.PathLike[str]) -> tuple[list[str], Iterator[Row | Reject]]:
    """Read the header and the rows of a CSV or TSV file, gzipped or not, in the encodings of :func:`read_records`.

    Cells are separated by commas, tabs or semicolons, whichever the first line has most of, and may be quoted. A
    quoted cell may hold line ends; a row of more than 20 lines is taken for a quote that was never closed, and
    its first line alone is a reject. So is a row with fewer or more cells than the header, unless those too many
    are empty. Empty lines are no rows.

    Raises:
        GraphgenError: no such file, a damaged archive, no header.
    """
    path = Path(path)
    lines = _Lookahead(_lines(path))
    while (head := lines.pop()) is not None and not head[1].strip():
        pass
    if head is None:
        raise _without_molecules(path)
    delimiter = max(",\t;", key=head[1].count)
    header = _row(head[1], lines, delimiter)
    if isinstance(header, str):
        raise GraphgenError(f"{path}: the first line is not a CSV header ({header})")
    return header, _rows(path, lines, delimiter, len(header))


def _without_molecules(path: Path) -> GraphgenError:
    return GraphgenError(f"{path}: the file holds no molecules; check that it is the file you meant")


def write_rejects(path: str | os.PathLike[str], rejects: Iterable[Reject]) -> None:
    """Write rejects as CSV with the columns ``where``, ``reason`` and ``input``."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("where", "reason", "input"))
        writer.writerows(rejects)


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading bytes, unpacked if its name ends in ``.gz``.

    Raises:
        GraphgenError: it cannot be opened, or is gzipped and not named so, or named so and not gzipped.
    """
    named = path.suffix.lower() == ".gz"
    opener: Callable[..., Any] = gzip.open if named else open
    try:
        if path.is_dir():
            raise GraphgenError(f"{path}: cannot be read, it is a folder; give a file")
        with open(path, "rb") as file:
            start = file.read(2)
        if start and named != (start == b"\x1f\x8b"):
            state, remedy = ("is not gzipped", "take .gz off") if named else ("is gzipped", "add .gz to")
            raise GraphgenError(f"{path}: {state}, which its name should say; {remedy} the name")
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
            encoding = _encoding(file.read(8))
            file.seek(0)
            errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
            for number, line in enumerate(io.TextIOWrapper(file, encoding, errors), start=1):
                yield number, _printable(line.rstrip("\n"))
        except UNREADABLE as error:
            raise damaged(path, error) from None


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # The first characters of a SMILES, a header or a program's name are ASCII, so every other byte of theirs is 0.
    even, odd = start[::2], start[1::2]
    if len(start) >= 4 and all(even) and not any(odd):
        return "utf-16-le"
    if len(start) >= 4 and all(odd) and not any(even):
        return "utf-16-be"
    return "utf-8-sig"


def _printable(line: str) -> str:
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            line = line.encode("utf-8", "surrogateescape").decode("latin-1")
    # RDKit reads no further than NUL: show it as a symbol that no SMILES has.
    return line.replace("\0", "\u2400")


def _smiles_records(path: Path) -> Iterator[Record | Reject]:
    first = True
    for number, line in _lines(path):
        if not line.strip():
            continue
        # Behind a tab at the beginning stands a name, not the SMILES that is missing.
        text, *name = ["", line] if line.lstrip(" ").startswith("\t") else line.split(None, 1)
        # No SMILES can contain this word, so a header is never mistaken for a molecule or the reverse.
        if not (first and "smiles" in text.lower()):
            yield Record(_where(path, number), text, name[0].strip() if name else "")
        first = False


def _where(path: Path, number: int) -> str:
    # A name that is no UTF-8 could not be written.
    return f"{os.fsencode(path.name).decode(errors='backslashreplace')}:{number}"


def _table_records(path: Path, column: str | None) -> Iterator[Record | Reject]:
    header, rows = read_table(path)
    chosen = _column(path, header, column)
    names = [i for i, name in enumerate(header) if name.lower() in ("name", "id", "title") and i != chosen]
    for row in rows:
        if isinstance(row, Reject):
            yield row
        else:
            yield Record(row.where, row.cells[chosen], row.cells[names[0]] if names else "")


def _rows(path: Path, lines: _Lookahead, delimiter: str, width: int) -> Iterator[Row | Reject]:
    while (line := lines.pop()) is not None:
        # White space alone is a row of empty cells.
        if not line[1]:
            continue
        where = _where(path, line[0])
        cells = _row(line[1], lines, delimiter, width)
        if isinstance(cells, str):
            yield Reject.of(where, f"broken CSV row: {cells}", line[1])
        else:
            yield Row(where, cells)


_ROW_LINES = 20
"""How many lines one quoted row may span: enough for notes, too few for a stray quote to swallow a file."""

_OPEN_QUOTE = "unexpected end of data"
"""What csv says of a row that goes on in the next line, if it is one at all."""


def _row(line: str, lines: _Lookahead, delimiter: str, width: int | None = None) -> list[str] | str:
    """The cells of the row that begins with ``line``, or what is wrong; takes any further lines it has."""
    for extra in range(_ROW_LINES):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except csv.Error as error:
            if str(error) != _OPEN_QUOTE:
                return "a quote is not closed" if extra else str(error)
        else:
            while width is not None and len(cells) > width and not cells[-1]:
                cells.pop()
            if width not in (None, len(cells)):
                return "a quote is not closed" if extra else f"{len(cells)} cells where the header has {width}"
            lines.drop(extra)
            return cells
        if (following := lines.peek(extra)) is None:
            break
        line += "\n" + following[1]
    return "a quote is not closed"


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
    lower = [name.lower() for name in header]
    if column is not None:
        found = [i for i, name in enumerate(header) if name == column]
        problem = (
            f"more than one column is called {column!r}; rename all but one," if found else f"no column {column!r};"
        )
    else:
        likely = [i for i, name in enumerate(lower) if "smiles" in name]
        found = [i for i in likely if lower[i] == "smiles"] or likely
        problem = "more than one column looks like SMILES" if found else "no column is called smiles"
        problem += "; name the one to use,"
    if len(found) == 1:
        return found[0]
    raise GraphgenError(f"{path}: {problem} the columns are {listed(header)}")


def listed(header: Sequence[str]) -> str:
    """Names of columns for a message: on one line, and not more than a screen of them."""
    # A file of another kind may have anything in its first line, terminal commands among it.
    names = "".join(character if character.isprintable() else " " for character in ", ".join(header))
    return names if len(names) <= 300 else f"{names[:300]} ... ({len(header):,} in all)"


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


def _sd_record(path: Path, start: int, block: list[str]) -> Record | Reject:
    where, text = _where(path, start), "\n".join(block) + "\n"
    # RDKit would read the first and not mention the others.
    if (blocks := sum(line.rstrip() == "M  END" for line in block)) > 1:
        return Reject.of(where, f"{blocks} mol blocks in one record: a line $$$$ is missing", text)
    return Record(where, text, block[0].strip() if block else "", "molblock")
