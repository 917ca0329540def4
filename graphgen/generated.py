"""What a model generated: one row for each attempt, failures included."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.molecules.codec import LONGEST_SMILES
from graphgen.molecules.records import Record, Reject, is_table, listed, read_records, read_table

_COLUMNS = ("id", "structure", "smiles", "reason", "atoms")


@dataclass(frozen=True, eq=False)
class Generated:
    """M attempts at a molecule.

    Attributes:
        smiles: M SMILES; None where the attempt gave no molecule.
        reasons: M reasons, None where there is a molecule.
        structures: [M] int64, the row in the skeletons whose bonds the attempt was given; None if bonds were
            sampled.
        atoms: [sum n] int64, the atom labels of all attempts in the atom order of their skeletons, indices
            into ``names``; None where only SMILES are known.
        node_ptr: [M + 1] int64, attempt i owns ``atoms[node_ptr[i]:node_ptr[i + 1]]``; None with ``atoms``.
        names: the name of each atom label, as ``Vocabulary.names`` gives them.
    """

    smiles: Sequence[str | None]
    reasons: Sequence[str | None]
    structures: Tensor | None = None
    atoms: Tensor | None = None
    node_ptr: Tensor | None = None
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.reasons) != len(self):
            raise ValueError(f"{len(self)} SMILES but {len(self.reasons)} reasons")
        if self.structures is not None and self.structures.shape != (len(self),):
            raise ValueError(f"structures: expected shape [{len(self)}], got {list(self.structures.shape)}")
        if (self.atoms is None) != (self.node_ptr is None):
            raise ValueError("atoms and node_ptr come together")
        if self.atoms is not None and self.node_ptr is not None:
            if self.node_ptr.shape != (len(self) + 1,) or self.node_ptr[-1] != self.atoms.numel():
                raise ValueError(f"node_ptr: expected [{len(self) + 1}] entries up to {self.atoms.numel()}")
            if self.atoms.numel() and not 0 <= int(self.atoms.min()) <= int(self.atoms.max()) < len(self.names):
                raise ValueError(f"atoms: labels outside the {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.smiles)

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write every attempt to ``.csv``, or those with a molecule to ``.smi``.

        The columns of the CSV are id, structure, smiles, reason, atoms; an attempt without a molecule has an
        empty smiles, and ``atoms`` holds label names in skeleton order, such as ``C N+ O-``. A line of the
        SMI is SMILES, a space, the number of the attempt.

        Returns:
            How many attempts the file does not hold: none for CSV, those without a molecule for SMI.

        Raises:
            GraphgenError: the path ends in something else.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in (".csv", ".smi"):
            raise GraphgenError(f"{path}: cannot write {suffix or 'a file without suffix'}; use .csv or .smi")
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
            if suffix == ".csv":
                writer = csv.writer(out, lineterminator="\n")
                writer.writerow(_COLUMNS)
                writer.writerows(self._records())
                return 0
            out.writelines(f"{text} {i}\n" for i, text in enumerate(self.smiles) if text)
        return sum(not text for text in self.smiles)

    def _records(self) -> Iterator[tuple[object, ...]]:
        structures = [""] * len(self) if self.structures is None else self.structures.tolist()
        ends = None if self.node_ptr is None else self.node_ptr.tolist()
        labels = [] if self.atoms is None else [self.names[a] for a in self.atoms.tolist()]
        for i, (text, reason) in enumerate(zip(self.smiles, self.reasons, strict=True)):
            atoms = "" if ends is None else " ".join(labels[ends[i] : ends[i + 1]])
            yield i, structures[i], text or "", reason or "", atoms

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Generated:
        """Read what :meth:`save` wrote, any CSV with a column ``smiles``, or any list of SMILES, one a line.

        Encodings, archives, headers and quotes are as :func:`~graphgen.molecules.records.read_records` has them.
        A row without SMILES, a broken one and one too long to be a SMILES are attempts without a molecule. Empty
        lines are not rows.

        Raises:
            GraphgenError: no such file, no rows, no column ``smiles`` or more than one, or a structure that is
                no number (file and line).
        """
        path = Path(path)
        if not path.exists():
            raise GraphgenError(f"{path}: no such file; give a .csv or .smi file of generated molecules")
        if is_table(path):
            return _from_table(path)
        found = [_attempt(record) for record in read_records(path)]
        return cls([smiles for smiles, _ in found], [reason for _, reason in found])


def _attempt(record: Record | Reject) -> tuple[str | None, str | None]:
    """The SMILES, or why there is none."""
    if isinstance(record, Reject):
        return None, record.reason
    if record.form != "smiles":
        raise GraphgenError(f"{record.where}: not a SMILES; give a .csv or .smi file of generated molecules")
    if len(record.text) > LONGEST_SMILES:
        return None, f"too long: {len(record.text):,} characters, at most {LONGEST_SMILES:,}"
    return (record.text, None) if record.text else (None, "no molecule")


def _from_table(path: Path) -> Generated:
    header, rows = read_table(path)
    column = {name.lower(): i for i, name in enumerate(header)}
    if (count := [name.lower() for name in header].count("smiles")) != 1:
        problem = "more than one column smiles" if count else "no column smiles"
        raise GraphgenError(f"{path}: {problem}; its columns are {listed(header)}")
    smiles: list[str | None] = []
    reasons: list[str | None] = []
    structures: list[int] = []
    labels: list[list[str]] = []
    for row in rows:
        cell = {} if isinstance(row, Reject) else {name: row.cells[i] for name, i in column.items()}
        text, reason = _attempt(row if isinstance(row, Reject) else Record(row.where, cell["smiles"]))
        smiles.append(text)
        reasons.append(reason and (cell.get("reason") or reason))
        if structure := cell.get("structure"):
            if not structure.isdecimal():
                raise GraphgenError(f"{row.where}: structure {structure!r} is not a row number; correct the column")
            structures.append(int(structure))
        labels.append(cell.get("atoms", "").split())
    if not smiles:
        raise GraphgenError(f"{path}: no molecules in it")
    if structures and len(structures) != len(smiles):
        raise GraphgenError(
            f"{path}: {len(smiles) - len(structures)} rows have no structure; fill the column or drop it"
        )
    names = list(dict.fromkeys(name for row in labels for name in row))
    index = {name: i for i, name in enumerate(names)}
    has_atoms = bool(names)
    sizes = torch.tensor([0, *map(len, labels)])
    return Generated(
        smiles,
        reasons,
        torch.tensor(structures) if structures else None,
        torch.tensor([index[name] for row in labels for name in row]) if has_atoms else None,
        sizes.cumsum(0) if has_atoms else None,
        names,
    )
