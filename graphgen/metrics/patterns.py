"""The patterns of the MOSES filters: files of their authors, looked for and never shipped."""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, DataStructs

from graphgen.errors import GraphgenError

FILES = {
    "moses/mcf.csv": "f4a2bfacb4cb8877295eb2a4b4e61ec9770a26388f1331e5dc9c193d22dd5f89",
    "moses/wehi_pains.csv": "d762e5420ec70f06d7e41d336cae6f67e2feb0eddf05c6171192a332726d296f",
}
"""The published files, relative to ``$GRAPHGEN_DATA``, and their SHA-256."""

_ELEMENTS = frozenset((6, 7, 16, 8, 9, 17, 35, 1))
_LARGEST_RING = 7


@dataclass(frozen=True, eq=False)
class Patterns:
    """SMARTS queries Q with the pattern fingerprints that rule most of them out at once.

    Attributes:
        queries: Q molecules of patterns.
        bits: [Q, 256] uint8, the packed pattern fingerprint of each: a molecule lacks the pattern if it lacks
            one of these bits.
    """

    queries: list[Chem.Mol]
    bits: NDArray[np.uint8]

    def any_in(self, mol: Chem.Mol) -> bool:
        """Whether ``mol``, with explicit hydrogens, has one of the patterns."""
        lacking = np.any(self.bits & ~_pattern_bits(mol), axis=1)
        return any(mol.HasSubstructMatch(self.queries[i]) for i in np.flatnonzero(~lacking))


def missing() -> str | None:
    """Why the filters cannot be computed, or None."""
    root = os.environ.get("GRAPHGEN_DATA")
    absent = [file for file in FILES if not (root and (Path(root) / file).is_file())]
    if not absent:
        return None
    return (
        f"no {' and '.join(absent)} under $GRAPHGEN_DATA; they are metrics/mcf.csv and metrics/wehi_pains.csv "
        "of github.com/molecularsets/moses"
    )


@lru_cache(maxsize=1)
def load() -> Patterns:
    """The published patterns.

    Raises:
        GraphgenError: a file is not there or is not the published one.
    """
    if why := missing():
        raise GraphgenError(why)
    smarts: list[str] = []
    for file, digest in FILES.items():
        path = Path(os.environ["GRAPHGEN_DATA"]) / file
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise GraphgenError(f"{path}: not the published file (its SHA-256 differs); replace it")
        rows = csv.reader(content.decode().splitlines())
        # Only the first of the two files has a header, and its columns are the other way round.
        smarts += [row[1] for row in rows][1:] if file.endswith("mcf.csv") else [row[0] for row in rows]
    queries = [Chem.MolFromSmarts(text) for text in smarts]
    return Patterns(queries, np.stack([_pattern_bits(query) for query in queries]))


def passes(mol: Chem.Mol) -> bool:
    """Whether a sanitised molecule passes the MOSES filters.

    No ring of more than 7 atoms, no formal charges, no elements but C N S O F Cl Br H, none of the patterns
    (MCF and PAINS) once hydrogens are explicit.

    Raises:
        GraphgenError: as :func:`load`.
    """
    if any(len(ring) > _LARGEST_RING for ring in mol.GetRingInfo().AtomRings()):
        return False
    if any(atom.GetFormalCharge() or atom.GetAtomicNum() not in _ELEMENTS for atom in mol.GetAtoms()):
        return False
    return not load().any_in(Chem.AddHs(mol))


def _pattern_bits(mol: Chem.Mol) -> NDArray[np.uint8]:
    return np.frombuffer(DataStructs.BitVectToBinaryText(Chem.PatternFingerprint(mol)), np.uint8)
