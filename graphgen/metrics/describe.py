"""What the distribution metrics need of every molecule, found in one pass and in several processes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import QED, rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold

from graphgen.files import atomic_write
from graphgen.metrics import patterns
from graphgen.molecules.workers import answers

try:
    from rdkit.Contrib.SA_Score import sascorer
except ImportError:  # a build of RDKit without its Contrib folder
    sascorer = None

PROPERTIES = ("logP", "QED", "SA", "weight")
BONDS = ("single", "double", "triple", "aromatic")
BITS, RADIUS = 1024, 2
FEW = 1_000
"""So many molecules are described sooner than a process starts."""
_SCAFFOLD_RINGS = 2
# To be raised with any change of what is described or measured: both are kept.
_VERSION = 3

_ORDER = {1.0: 0, 2.0: 1, 3.0: 2, 1.5: 3}
Watch = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Description:
    """M molecules with N atoms and B bonds together.

    Attributes:
        fingerprints: [M, 128] uint8, Morgan fingerprints of radius 2 and 1,024 bits, packed.
        fragments, scaffolds: how often each BRICS fragment, each Murcko scaffold of two rings or more occurs.
        passes: [M] bool, passes the MOSES filters; None if that was not asked.
        rings: [M] int64, number of rings (SSSR).
        ring_sizes: [R] int64, atoms of every ring.
        properties: [M, 4] float64, the columns of :data:`PROPERTIES`; weight in g/mol.
        elements: [N] int64 atomic numbers.
        bonds: [B, 3] int64, two atoms of a molecule (from 0) and the row of :data:`BONDS`.
        node_ptr, bond_ptr: [M + 1] int64, molecule i owns ``elements[node_ptr[i]:node_ptr[i + 1]]``.
        failed: molecules left out, since RDKit could not read or describe them.
    """

    fingerprints: NDArray[np.uint8]
    fragments: Counter[str]
    scaffolds: Counter[str]
    passes: NDArray[np.bool_] | None
    rings: NDArray[np.int64]
    ring_sizes: NDArray[np.int64]
    properties: NDArray[np.float64]
    elements: NDArray[np.int64]
    bonds: NDArray[np.int64]
    node_ptr: NDArray[np.int64]
    bond_ptr: NDArray[np.int64]
    failed: int

    def __len__(self) -> int:
        return len(self.rings)


def describe(
    smiles: Sequence[str],
    filters: bool = False,
    watch: Watch = lambda items, total, name: items,
    name: str = "describing",
) -> Description:
    """Describe molecules, duplicates included. Stereo marks are read and change no more than scaffold names.

    Args:
        smiles: of the molecules; those that cannot be described are counted in ``failed``.
        filters: also ask whether each passes the MOSES filters.
        watch: shows the progress through an iterable of known length, under ``name``.

    Raises:
        GraphgenError: the patterns of the filters are missing, or a process cannot be started.
    """
    if filters:
        patterns.load()
    with closing(answers(f"{__name__}:facts", ((text, filters) for text in smiles), len(smiles), FEW)) as found:
        return collect(list(watch(found, len(smiles), name)), filters)


def kept(path: Path) -> Description | None:
    """What :func:`keep` wrote there, if it is whole."""
    if not path.exists():
        return None
    try:
        return _open(path)
    except (OSError, ValueError, KeyError, BadZipFile):
        path.unlink()
        return None


def keep(found: Description, path: Path) -> None:
    """Write a description for the next time, if the folder can be written."""
    with suppress(OSError), atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **_arrays(found))


def place(smiles: Sequence[str], filters: bool, folder: Path) -> Path:
    """Where the description of these molecules is kept."""
    return folder / f"described-{cache_key(smiles, filters)}.npz"


def cache_key(*parts: object) -> str:
    """Names what was computed from ``parts``, which JSON can carry, by this version and this RDKit."""
    text = json.dumps([parts, _VERSION, rdBase.rdkitVersion, sascorer is not None])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)


def facts(text: str, filters: bool) -> list[Any] | str:
    """What :func:`collect` needs of one SMILES, as JSON can carry it, or why there is nothing."""
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromSmiles(text)
            return "not a molecule" if mol is None or not mol.GetNumAtoms() else facts_of(mol, filters)
        except Exception as error:
            # RDKit raises many kinds of exception on strange input; one molecule must not end an evaluation.
            return f"RDKit failed: {type(error).__name__}"


def facts_of(mol: Chem.Mol, filters: bool) -> list[Any]:
    """The same of a molecule that was read from its SMILES; the order of its atoms is that of the SMILES."""
    qed = QED.properties(mol)
    scaffold = MurckoScaffold.GetScaffoldForMol(mol)
    orders = Chem.GetAdjacencyMatrix(mol, useBO=True)
    first, second = np.triu(orders).nonzero()
    return [
        DataStructs.BitVectToBinaryText(_morgan().GetFingerprint(mol)).hex(),
        Chem.MolToSmiles(Chem.FragmentOnBRICSBonds(mol)).split("."),
        Chem.MolToSmiles(scaffold) if scaffold.GetRingInfo().NumRings() >= _SCAFFOLD_RINGS else None,
        patterns.passes(mol) if filters else None,
        [len(ring) for ring in mol.GetRingInfo().AtomRings()],
        # The properties QED is made of are two of ours.
        [qed.ALOGP, QED.qed(mol, qedProperties=qed), sascorer.calculateScore(mol) if sascorer else None, qed.MW],
        [mol.GetAtomWithIdx(i).GetAtomicNum() for i in range(mol.GetNumAtoms())],
        [(u, v, _ORDER.get(orders[u, v], 0)) for u, v in zip(first.tolist(), second.tolist(), strict=True)],
    ]


def collect(found: Iterable[list[Any] | str], filters: bool) -> Description:
    """The description of molecules from their :func:`facts`."""
    found = list(found)
    rows = [row for row in found if not isinstance(row, str)]
    prints, fragments, scaffolds, passes, rings, properties, elements, bonds = (
        [row[i] for row in rows] for i in range(8)
    )
    return Description(
        fingerprints=np.frombuffer(bytes.fromhex("".join(prints)), np.uint8).reshape(-1, BITS // 8),
        fragments=Counter(fragment for row in fragments for fragment in row),
        scaffolds=Counter(scaffold for scaffold in scaffolds if scaffold is not None),
        passes=np.array(passes, bool) if filters else None,
        rings=np.array([len(row) for row in rings], np.int64),
        ring_sizes=np.array([size for row in rings for size in row], np.int64),
        properties=np.array(properties, np.float64).reshape(-1, len(PROPERTIES)),
        elements=np.array([z for row in elements for z in row], np.int64),
        bonds=np.array([bond for row in bonds for bond in row], np.int64).reshape(-1, 3),
        node_ptr=np.cumsum([0, *map(len, elements)]),
        bond_ptr=np.cumsum([0, *map(len, bonds)]),
        failed=len(found) - len(rows),
    )


_COUNTERS = ("fragments", "scaffolds")


def _arrays(found: Description) -> dict[str, Any]:
    arrays = {name: value for name, value in vars(found).items() if isinstance(value, (np.ndarray, int))}
    for name in _COUNTERS:
        counter = getattr(found, name)
        arrays[name] = np.array(list(counter), np.str_)
        arrays[f"{name}_counts"] = np.array(list(counter.values()), np.int64)
    return arrays


def _open(path: Path) -> Description:
    with np.load(path) as stored:
        arrays: dict[str, Any] = dict(stored)
    for name in _COUNTERS:
        counts = arrays.pop(f"{name}_counts").tolist()
        arrays[name] = Counter(dict(zip(arrays[name].tolist(), counts, strict=True)))
    return Description(**{"passes": None, **arrays, "failed": int(arrays["failed"])})
