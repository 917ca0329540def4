"""What a model generated: one row for each attempt, failures included."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rdkit import Chem, rdBase
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.extras import extra
from graphgen.molecules import output
from graphgen.molecules.codec import LONGEST_SMILES, EncodeError, parse
from graphgen.molecules.records import Record, Reject, is_table, listed, read_records, read_table

_INVALID, _VALID, _DUPLICATE = range(3)  # SMILES_state, as REINVENT numbers it
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Generated:
    """M attempts at a molecule; a notebook shows the first of them as pictures.

    Attributes:
        smiles: M SMILES; None where the attempt gave no molecule.
        reasons: M reasons, None where there is a molecule.
        structures: [M] int64, the row in the skeletons whose bonds the attempt was given; None if bonds were
            sampled.
        atoms: [sum n] int64, the atom labels of all attempts in the atom order of their skeletons, indices
            into ``names``; None where only SMILES are known.
        node_ptr: [M + 1] int64, attempt i owns ``atoms[node_ptr[i]:node_ptr[i + 1]]``; None with ``atoms``.
        names: the name of each atom label, as ``Vocabulary.names`` gives them.
        nll: [M] minus the model's log-probability of each attempt in nats, as its ``log_prob`` defines it; None where
            it is not known.
        nll_stderr: [M] the standard error of ``nll`` where that is an estimate; NaN where it is not known.
        accepted: [M] int64, how many of an attempt's candidates were molecules; None where none were rejected.
        seconds: that passed in the model, and with all that RDKit makes of its results; None where it is not known.
    """

    smiles: Sequence[str | None]
    reasons: Sequence[str | None]
    structures: Tensor | None = None
    atoms: Tensor | None = None
    node_ptr: Tensor | None = None
    names: Sequence[str] = ()
    nll: Tensor | None = None
    nll_stderr: Tensor | None = None
    accepted: Tensor | None = None
    seconds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.reasons) != len(self):
            raise ValueError(f"{len(self)} SMILES but {len(self.reasons)} reasons")
        if self.structures is not None and self.structures.shape != (len(self),):
            raise ValueError(f"structures: expected shape [{len(self)}], got {list(self.structures.shape)}")
        for name, values in (("nll", self.nll), ("nll_stderr", self.nll_stderr), ("accepted", self.accepted)):
            if values is not None and values.shape != (len(self),):
                raise ValueError(f"{name}: expected shape [{len(self)}], got {list(values.shape)}")
        if (self.atoms is None) != (self.node_ptr is None):
            raise ValueError("atoms and node_ptr come together")
        if self.atoms is not None and self.node_ptr is not None:
            if self.node_ptr.shape != (len(self) + 1,) or self.node_ptr[-1] != self.atoms.numel():
                raise ValueError(f"node_ptr: expected [{len(self) + 1}] entries up to {self.atoms.numel()}")
            if self.atoms.numel() and not 0 <= int(self.atoms.min()) <= int(self.atoms.max()) < len(self.names):
                raise ValueError(f"atoms: labels outside the {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.smiles)

    @cached_property
    def mols(self) -> list[Any]:
        """M RDKit molecules; None where there is no molecule, or RDKit refuses the SMILES."""
        with rdBase.BlockLogs():
            return [Chem.MolFromSmiles(text) if text else None for text in self.smiles]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """What the tables hold, under REINVENT's names; None is an empty cell.

        SMILES, SMILES_state (0 no molecule, 1 a new one, 2 one that was there before), NLL and NLL_stderr where they
        are known; then id (the attempt), structure, accepted, reason, and atoms (label names in the order of the
        skeleton, such as ``C N+ O-``) as far as they are known.
        """
        seen: set[str] = set()
        found: dict[str, list[Any]] = {"SMILES": [text or None for text in self.smiles], "SMILES_state": []}
        for text in found["SMILES"]:
            found["SMILES_state"].append(_INVALID if text is None else _DUPLICATE if text in seen else _VALID)
            seen.add(text)
        if self.nll is not None:
            found["NLL"] = self.nll.double().tolist()
        if self.nll_stderr is not None:
            found["NLL_stderr"] = self.nll_stderr.double().tolist()
        found["id"] = list(range(len(self)))
        if self.structures is not None:
            found["structure"] = self.structures.tolist()
        if self.accepted is not None:
            found["accepted"] = self.accepted.tolist()
        found["reason"] = [reason or None for reason in self.reasons]
        if self.atoms is not None and self.node_ptr is not None:
            labels, ends = [self.names[a] for a in self.atoms.tolist()], self.node_ptr.tolist()
            found["atoms"] = [" ".join(labels[a:b]) for a, b in pairwise(ends)]
        return found

    def to_frame(self) -> Any:
        """:attr:`columns` as a pandas DataFrame.

        Raises:
            GraphgenError: no pandas (extra ``tables``).
        """
        return extra("pandas", "tables").DataFrame(self.columns)

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write every attempt to ``.csv`` or ``.parquet``, or those with a molecule to ``.smi`` or ``.sdf``.

        Tables have the :attr:`columns`. A line of the SMI is SMILES, a space, the number of the attempt; the SDF has it
        as title, 2D coordinates, and the columns as properties. ``.gz`` may follow all but ``.parquet``.

        Returns:
            How many attempts the file does not hold: none for tables, those without a molecule for lists.

        Raises:
            GraphgenError: the path ends in something else, or no pyarrow for Parquet (extra ``tables``).
        """
        return output.write(path, self.columns)

    def _repr_html_(self) -> str:
        from graphgen.report.drawing import molecule_svg

        good = sum(text is not None for text in self.smiles)
        distinct = len(set(self.smiles) - {None})
        found = ((text, molecule_svg(text, True)) for text in self.smiles if text)
        cells = [
            f'<figure style="margin:0" title="{html.escape(text)}">{svg}</figure>'
            for (text, svg), _ in zip(((t, s) for t, s in found if s), range(_SHOWN), strict=False)
        ]
        return (
            f"<p>{len(self):,} attempts, {good:,} molecules, {distinct:,} distinct</p>"
            '<div style="display:grid;grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:8px;'
            '--atom-7:#3b74e0;--atom-8:#d9483b;--atom-9:#2c9c5a;--atom-16:#b58900;--atom-17:#2c9c5a">'
            f"{''.join(cells)}</div>"
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], column: str | None = None) -> Generated:
        """Read what :meth:`save` wrote, any table with SMILES, or any list of molecules.

        Encodings, archives, headers and quotes are as :func:`~graphgen.molecules.records.read_records` has them.
        A row without SMILES, a broken one, one too long to be a SMILES and a mol block that cannot be read are attempts
        without a molecule. Empty lines are not rows.

        Args:
            column: with the SMILES, in any case; by default the one called smiles.

        Raises:
            GraphgenError: no such file, no rows, no such column or more than one, or a structure or an NLL that is no
                number (file and line).
        """
        path = Path(path)
        if not path.exists():
            raise GraphgenError(f"{path}: no such file; give a .csv, .smi, .sdf or .parquet file of molecules")
        if is_table(path):
            return _from_table(path, column)
        found = [_attempt(record) for record in read_records(path, column)]
        return cls([smiles for smiles, _ in found], [reason for _, reason in found])


def _attempt(record: Record | Reject) -> tuple[str | None, str | None]:
    """The SMILES, or why there is none."""
    if isinstance(record, Reject):
        return None, record.reason
    if record.form != "smiles":
        try:
            return Chem.MolToSmiles(parse(record.text, record.form)), None
        except EncodeError as error:
            return None, error.reason
    if len(record.text) > LONGEST_SMILES:
        return None, f"too long: {len(record.text):,} characters, at most {LONGEST_SMILES:,}"
    return (record.text, None) if record.text else (None, "no molecule")


def _from_table(path: Path, smiles_column: str | None) -> Generated:
    header, rows = read_table(path)
    column = {name.lower(): i for i, name in enumerate(header)}
    wanted = (smiles_column or "smiles").strip().lower()
    if (count := [name.lower() for name in header].count(wanted)) != 1:
        problem = f"{'more than one' if count else 'no'} column {smiles_column or 'smiles'}"
        raise GraphgenError(f"{path}: {problem}; its columns are {listed(header)}")
    column["smiles"] = column.pop(wanted)
    smiles: list[str | None] = []
    reasons: list[str | None] = []
    structures: list[int] = []
    numbers: dict[str, list[float]] = {"nll": [], "nll_stderr": []}
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
        for name, values in numbers.items():
            values.append(_number(cell.get(name) or "nan", row.where))
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
        nll=_known(numbers["nll"]),
        nll_stderr=_known(numbers["nll_stderr"]),
    )


def _known(values: list[float]) -> Tensor | None:
    found = torch.tensor(values, dtype=torch.float64)
    return None if found.isnan().all() else found


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise GraphgenError(f"{where}: NLL {text!r} is not a number; correct the column") from None
