"""Numbers that say what a molecule is like, to ask a model for: by RDKit, once for each data set, and kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from graphgen.errors import GraphgenError
from graphgen.files import atomic_write
from graphgen.molecules.encoded import EncodedMolecules
from graphgen.progress import progress_bar

FEW = 2_000
"""Of so many molecules properties are found sooner than a process starts."""
# To be raised with any change of what a property is.
_VERSION = 1


def qed(smiles: str) -> float:
    """Drug-likeness, 0 to 1 (Bickerton et al. 2012)."""
    from rdkit.Chem import QED, MolFromSmiles

    return QED.qed(MolFromSmiles(smiles))


def logp(smiles: str) -> float:
    """Octanol-water partition coefficient, base 10 (Wildman and Crippen 1999)."""
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors

    return CalcCrippenDescriptors(MolFromSmiles(smiles))[0]


def sa(smiles: str) -> float:
    """Synthetic accessibility, 1 (easy) to 10 (Ertl and Schuffenhauer 2009); NaN if RDKit lacks its Contrib folder."""
    from rdkit.Chem import MolFromSmiles

    from graphgen.metrics.describe import sascorer

    return sascorer.calculateScore(MolFromSmiles(smiles)) if sascorer else math.nan


def mw(smiles: str) -> float:
    """Molecular weight with hydrogens, g/mol, elements as they occur."""
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.rdMolDescriptors import _CalcMolWt

    return _CalcMolWt(MolFromSmiles(smiles))


PROPERTIES: dict[str, Callable[[str], float]] = {"qed": qed, "logp": logp, "sa": sa, "mw": mw}


def check(names: Sequence[str]) -> None:
    """
    Raises:
        GraphgenError: a name that is none of :data:`PROPERTIES`, or one that is there twice.
    """
    for name in names:
        if name not in PROPERTIES:
            raise GraphgenError(f"property {name!r}: there are {', '.join(PROPERTIES)}")
        if list(names).count(name) > 1:
            raise GraphgenError(f"property {name!r} is there twice; name it once")


def of_smiles(text: str) -> list[float | None]:
    """Each of :data:`PROPERTIES`; None where RDKit has none."""
    from rdkit import rdBase

    found: list[float | None] = []
    with rdBase.BlockLogs():
        for function in PROPERTIES.values():
            try:
                value = function(text)
            except Exception:
                # RDKit raises many kinds of exception on strange input; one molecule must not end a run.
                value = math.nan
            found.append(value if math.isfinite(value) else None)
    return found


def measured(smiles: Sequence[str], progress: bool = True) -> torch.Tensor:
    """[M, 4] float64, the columns of :data:`PROPERTIES`; NaN where there is none."""
    from graphgen.molecules.workers import answers

    rows = []
    work = answers(f"{__name__}:of_smiles", ((text,) for text in smiles), len(smiles), FEW)
    with closing(work) as found, progress_bar("properties", len(smiles), progress) as advance:
        for row in found:
            # A molecule that crashes RDKit is answered in words.
            rows.append([math.nan if isinstance(row, str) or x is None else x for x in _each(row)])
            advance()
    return torch.tensor(rows, dtype=torch.float64).view(-1, len(PROPERTIES))


def _each(row: list[float | None] | str) -> list[float | None]:
    return [None] * len(PROPERTIES) if isinstance(row, str) else row


def with_properties(
    data: EncodedMolecules, names: Sequence[str], folder: Path, progress: bool = True
) -> EncodedMolecules:
    """The data set whose batches have properties: found once for the whole of it and kept in a folder.

    Where they are kept already, no RDKit is needed.

    Args:
        data: a data set or a view of one.
        names: of :data:`PROPERTIES`, in the order of the columns.

    Raises:
        GraphgenError: a property that there is not.
    """
    check(names)
    path = folder / f"{data.name}-{_key(data)}.properties.safetensors"
    values = None
    if path.exists():
        with suppress(OSError, SafetensorError, KeyError):
            values = load_file(path)["properties"]
    if values is None:
        whole = data.whole()
        values = measured([whole.smiles(i) for i in range(len(whole))], progress)
        with suppress(OSError), atomic_write(path) as temporary:
            save_file({"properties": values}, temporary)
    columns = [list(PROPERTIES).index(name) for name in names]
    return data.with_properties(names, values[:, columns])


def asked(text: str) -> dict[str, float]:
    """``qed=0.9,logp=2`` as numbers by name.

    Raises:
        GraphgenError: not of that form, or as :func:`check` has it.
    """
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    check([name.strip() for name, _ in pairs])
    try:
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise GraphgenError(f"condition {text!r}: give values as in qed=0.9,logp=2") from None


class Achieved(NamedTuple):
    """How one property is distributed over molecules.

    Attributes:
        molecules: that have it.
        mean, deviation: of these.
        near: the share that is within a tolerance of what was asked.
    """

    molecules: int
    mean: float
    deviation: float
    near: float

    @classmethod
    def of(cls, values: torch.Tensor, wanted: float, tolerance: float) -> Achieved:
        """Of values [M], NaN where a molecule has none."""
        known = values[values.isfinite()]
        near = ((known - wanted).abs() <= tolerance).double().mean()
        return cls(len(known), float(known.mean()), float(known.std(correction=0)), float(near))


def _key(data: EncodedMolecules) -> str:
    """Names what was computed for these molecules, whatever the view."""
    digest = hashlib.sha256(f"{_VERSION} {list(PROPERTIES)}".encode())
    digest.update(data.smiles_bytes())
    return digest.hexdigest()[:16]
