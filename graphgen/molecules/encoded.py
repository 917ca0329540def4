"""A data set of encoded molecules: one memory-mapped file, batched without a loop.

RDKit is not needed here; training from an encoded file works on a machine without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.graph import GraphBatch
from graphgen.molecules.records import Reject
from graphgen.molecules.vocabulary import CODEC_VERSION, Atom, MoleculeGraph, Vocabulary

SPLITS = ("train", "valid", "test")


def split_of(smiles: str) -> int:
    """The split of a molecule, an index into :data:`SPLITS`, from its stereo-free canonical SMILES alone.

    The first 8 bytes of the SHA-256, as a big-endian number modulo 10: 0-7 train, 8 valid, 9 test. Equal
    molecules therefore never fall on both sides, in whatever file they come.
    """
    digit = int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:8], "big") % 10
    return max(0, digit - 7)


class MoleculeBatch(NamedTuple):
    """A batch of B molecules with N atoms and m bonds.

    ``graph`` has each bond in both directions (E = 2 m) with ``edge_attr`` the bond type, int64 [E];
    ``atoms`` is int64 [N], indices into the vocabulary; ``ids`` is int64 [B], row numbers in the whole set.
    ``properties`` is float64 [B, p], NaN where a molecule has none, or None if the data set was given none.
    """

    graph: GraphBatch
    atoms: Tensor
    ids: Tensor
    properties: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EncodedMolecules:
    """M molecules as flat arrays, or a view of some rows of them.

    Attributes:
        vocabulary: the atom types of the whole data set.
        name: of the data set.
        source_sha256: of the unpacked file it was made from, empty if there was none.
        rows: int64 [M], row numbers in the whole data set.
        properties: names of what :meth:`with_properties` gave it.
    """

    vocabulary: Vocabulary
    name: str
    source_sha256: str
    rows: Tensor
    _columns: Mapping[str, Tensor] = field(repr=False)
    properties: tuple[str, ...] = ()
    _values: Tensor | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EncodedMolecules:
        """Map a file that :meth:`save` wrote.

        Raises:
            GraphgenError: it cannot be read, is no such file, or is of another codec version.
        """
        try:
            with safe_open(path, "pt") as file:
                meta = json.loads((file.metadata() or {}).get("graphgen", "{}"))
                columns = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise GraphgenError(f"{path}: not a readable file of encoded molecules ({error})") from None
        if meta.get("codec") != CODEC_VERSION or columns.keys() != _COLUMNS:
            raise GraphgenError(f"{path}: not encoded by this version of graphgen; encode the source again")
        return cls(
            vocabulary=Vocabulary.from_json(meta["vocabulary"]),
            name=meta["name"],
            source_sha256=meta["source_sha256"],
            rows=torch.arange(len(columns["split"])),
            _columns=columns,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole data set as safetensors, whole or not at all.

        Raises:
            ValueError: this is a view.
        """
        if len(self) != len(self._columns["split"]):
            raise ValueError("a split is a view of a data set; save the data set")
        meta = {
            "codec": CODEC_VERSION,
            "name": self.name,
            "source_sha256": self.source_sha256,
            "vocabulary": self.vocabulary.to_json(),
        }
        with atomic_write(path) as temporary:
            save_file(dict(self._columns), temporary, metadata={"graphgen": json.dumps(meta)})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sizes(self) -> Tensor:
        """int64 [M], heavy atoms of each molecule."""
        ptr = self._columns["node_ptr"]
        return ptr[self.rows + 1] - ptr[self.rows]

    @cached_property
    def rejects(self) -> tuple[Reject, ...]:
        """The records of the source that are not here, in file order."""
        return tuple(Reject(*row) for row in json.loads(bytes(self._columns["rejects"].numpy())))

    @property
    def report(self) -> dict[str, Any]:
        """Of the source: ``rows`` read, ``encoded``, and ``rejected`` by reason without its detail."""
        reasons = Counter(reject.reason.split(":")[0] for reject in self.rejects)
        encoded = len(self._columns["split"])
        rejected = dict(reasons.most_common())
        return {"rows": encoded + len(self.rejects), "encoded": encoded, "rejected": rejected}

    def smiles(self, index: int) -> str:
        """The stereo-free canonical SMILES of molecule ``index``."""
        start, stop = self._span("smiles_ptr", index)
        return self._smiles[start:stop].tobytes().decode()

    def graph(self, index: int) -> MoleculeGraph:
        """Molecule ``index`` as it was encoded."""
        first, last = self._span("node_ptr", index)
        start, stop = self._span("bond_ptr", index)
        atoms = self._columns["atoms"][first:last].tolist()
        bonds = self._columns["bonds"][start:stop].tolist()
        kinds = self._columns["bond_type"][start:stop].tolist()
        return MoleculeGraph(
            atoms=tuple(self.vocabulary.atoms[atom] for atom in atoms),
            bonds=tuple((u, v, kind) for (u, v), kind in zip(bonds, kinds, strict=True)),
        )

    def split(self, name: str) -> EncodedMolecules:
        """The rows of this set in ``"train"``, ``"valid"`` or ``"test"``, as a view.

        Raises:
            ValueError: another name.
        """
        member = self._columns["split"][self.rows] == SPLITS.index(name)
        return replace(self, rows=self.rows[member])

    def take(self, indices: Sequence[int] | Tensor) -> EncodedMolecules:
        """The molecules at ``indices`` [M] of this set or view, as a view.

        Raises:
            IndexError: an index is out of range.
        """
        return replace(self, rows=self.rows[torch.as_tensor(indices, dtype=torch.int64)])

    def whole(self) -> EncodedMolecules:
        """The data set that this is a view of."""
        return replace(self, rows=torch.arange(len(self._columns["split"])))

    def smiles_bytes(self) -> bytes:
        """All SMILES of the whole data set, and where each ends: what it is made of."""
        return bytes(self._columns["smiles"].numpy()) + bytes(self._columns["smiles_ptr"].numpy())

    def with_properties(self, names: Sequence[str], values: Tensor) -> EncodedMolecules:
        """The same molecules with numbers of any kind, which batches then have and no file keeps.

        Args:
            names: p names, one a column.
            values: [rows of the whole data set, p]; NaN where a molecule has none.

        Raises:
            ValueError: not of that shape.
        """
        expected = [len(self._columns["split"]), len(names)]
        if list(values.shape) != expected:
            raise ValueError(f"with_properties: expected values {expected}, got {list(values.shape)}")
        return replace(self, properties=tuple(names), _values=values.double())

    def property_values(self) -> Tensor:
        """[M, p] float64."""
        return torch.zeros(len(self), 0) if self._values is None else self._values[self.rows]

    def relabelled(self, vocabulary: Vocabulary) -> EncodedMolecules:
        """The same molecules with labels that are indices into another vocabulary.

        Raises:
            ValueError: one of them has an atom type that it lacks.
        """
        labels = torch.tensor(
            [vocabulary.atoms.index(atom) if atom in vocabulary.atoms else -1 for atom in self.vocabulary.atoms]
        )
        nodes, _ = _gather(self._columns["node_ptr"], self.rows)
        if bool((labels[self._columns["atoms"][nodes].long()] < 0).any()):
            raise ValueError("relabelled: some of the molecules have atom types that the vocabulary lacks")
        atoms = labels.clamp(min=0).to(torch.uint8)[self._columns["atoms"].long()]
        return replace(self, vocabulary=vocabulary, _columns={**self._columns, "atoms": atoms})

    def batch(self, indices: Sequence[int] | Tensor, device: torch.device | str | None = None) -> MoleculeBatch:
        """The molecules at ``indices`` [B] of this set or view, in that order.

        Raises:
            IndexError: an index is out of range.
        """
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64, device="cpu")]
        nodes, ptr = _gather(self._columns["node_ptr"], rows)
        bonds, bond_ptr = _gather(self._columns["bond_ptr"], rows)
        first_node = torch.repeat_interleave(ptr[:-1], bond_ptr.diff())
        ends = (self._columns["bonds"][bonds] + first_node[:, None]).T
        kinds = self._columns["bond_type"][bonds].long()
        graph = GraphBatch.from_edge_index(
            torch.cat((ends, ends.flip(0)), 1), len(nodes), ptr=ptr, edge_attr=torch.cat((kinds, kinds))
        )
        atoms = self._columns["atoms"][nodes].long()
        values = None if self._values is None else self._values[rows]
        if device is None:
            return MoleculeBatch(graph, atoms, rows, values)
        moved = None if values is None else values.to(device)
        return MoleculeBatch(graph.to(device), atoms.to(device), rows.to(device), moved)

    @cached_property
    def _smiles(self) -> Any:
        return self._columns["smiles"].numpy()

    @cached_property
    def _ptrs(self) -> dict[str, Any]:
        return {key: self._columns[key].numpy() for key in ("node_ptr", "bond_ptr", "smiles_ptr")}

    @cached_property
    def _row_numbers(self) -> Any:
        return self.rows.numpy()

    def _span(self, key: str, index: int) -> tuple[int, int]:
        row, ptr = self._row_numbers[index], self._ptrs[key]
        return ptr[row], ptr[row + 1]


_COLUMNS = {
    "atoms", "node_ptr", "bonds", "bond_type", "bond_ptr", "split", "smiles", "smiles_ptr", "rejects",
}  # fmt: skip


def _gather(ptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the members of each of ``rows``, end to end, and where each row begins there [B + 1]."""
    counts = ptr[rows + 1] - ptr[rows]
    begins = torch.zeros(len(rows) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=begins[1:])
    shift = torch.repeat_interleave(ptr[rows] - begins[:-1], counts)
    return torch.arange(len(shift)) + shift, begins


class Encoder:
    """Collects molecules one at a time into an :class:`EncodedMolecules`."""

    def __init__(self) -> None:
        self._types: dict[Atom, int] = {}
        self._counts: Counter[int] = Counter()
        self._atoms, self._bonds, self._kinds = array("i"), array("i"), array("B")
        self._node_ptr, self._bond_ptr, self._smiles_ptr = array("q", [0]), array("q", [0]), array("q", [0])
        self._splits, self._smiles = array("B"), bytearray()

    def add(self, graph: MoleculeGraph, smiles: str) -> None:
        """Append a molecule with its stereo-free canonical SMILES."""
        atoms = [self._types.setdefault(atom, len(self._types)) for atom in graph.atoms]
        self._counts.update(atoms)
        self._atoms.extend(atoms)
        for u, v, kind in graph.bonds:
            self._bonds.extend((u, v))
            self._kinds.append(kind)
        self._smiles += smiles.encode()
        self._splits.append(split_of(smiles))
        self._node_ptr.append(len(self._atoms))
        self._bond_ptr.append(len(self._kinds))
        self._smiles_ptr.append(len(self._smiles))

    def finish(self, name: str, source_sha256: str = "", rejects: Iterable[Reject] = ()) -> EncodedMolecules:
        """The data set of all that was added.

        Raises:
            GraphgenError: more than 256 atom types.
        """
        vocabulary = Vocabulary.from_counts({atom: self._counts[i] for atom, i in self._types.items()})
        if len(vocabulary) > 256:
            raise GraphgenError(f"{name}: has {len(vocabulary)} atom types, but at most 256 can be encoded")
        renumber = torch.tensor([vocabulary.index(*atom) for atom in self._types], dtype=torch.uint8)
        bonds = _tensor(self._bonds, torch.int32).reshape(-1, 2)
        columns = {
            "atoms": renumber[_tensor(self._atoms, torch.int32).long()],
            "node_ptr": _tensor(self._node_ptr, torch.int64),
            "bonds": bonds.to(torch.uint8) if not len(bonds) or int(bonds.max()) < 256 else bonds,
            "bond_type": _tensor(self._kinds, torch.uint8),
            "bond_ptr": _tensor(self._bond_ptr, torch.int64),
            "split": _tensor(self._splits, torch.uint8),
            "smiles": _tensor(self._smiles, torch.uint8),
            "smiles_ptr": _tensor(self._smiles_ptr, torch.int64),
            "rejects": _tensor(_packed(rejects), torch.uint8),
        }
        return EncodedMolecules(vocabulary, name, source_sha256, torch.arange(len(self._splits)), columns)


def _packed(rejects: Iterable[Reject]) -> bytearray:
    """A list in JSON, written piece by piece: the rejects of a bad file are most of what is in memory."""
    buffer = bytearray(b"[")
    for reject in rejects:
        buffer += b", " if len(buffer) > 1 else b""
        buffer += json.dumps(reject).encode()
    return buffer + b"]"


def _tensor(buffer: array[int] | bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(buffer, dtype=dtype).clone() if len(buffer) else torch.empty(0, dtype=dtype)
