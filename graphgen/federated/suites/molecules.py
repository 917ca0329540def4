"""Molecules with a class that RDKit computes, from domains that differ in size, scaffold or source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graphgen.errors import GraphgenError
from graphgen.federated.networks import GraphEncoder, Networks
from graphgen.federated.server import Labelled
from graphgen.federated.suites import Domain, Suite, first_so_many, shuffled
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.molecules.vocabulary import Vocabulary

_ELEMENTS = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
# Agreed on before anyone looks at data, as the networks are.
VOCABULARY = Vocabulary(tuple((element, charge) for element in _ELEMENTS for charge in (0, 1, -1)))

SOURCE = {"data": "zinc250k", "atoms": [14, 17]}
CLIENTS = (
    {"name": "24-26 atoms", "data": "zinc250k", "atoms": [24, 26]},
    {"name": "28-30 atoms", "data": "zinc250k", "atoms": [28, 30]},
    {"name": "32-38 atoms", "data": "zinc250k", "atoms": [32, 38]},
    {"name": "26-38, bicyclic", "data": "zinc250k", "atoms": [26, 38], "contains": "a1aaaa2aaaaa12"},
)
_KEYS = ("name", "data", "atoms", "contains", "lacks")


class Molecules:
    """Molecules of a data set as examples."""

    def __init__(self, encoded: EncodedMolecules) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def batch(self, indices: Tensor) -> MoleculeBatch:
        return self.encoded.batch(indices)


def molecules(
    clients: Sequence[Mapping[str, Any]] = CLIENTS,
    source: Mapping[str, Any] = SOURCE,
    label: str = "logp-for-size",
    classes: int = 2,
    source_examples: int = 1500,
    client_examples: int = 300,
    test_examples: int = 1000,
    hidden: int = 32,
    layers: int = 3,
    seed: int = 0,
) -> Suite:
    """A federation on molecules.

    Args:
        clients, source: tables of ``data`` (a named set or a file, ``$GRAPHGEN_DATA`` in front is replaced), ``atoms``
            (fewest and most heavy atoms), ``contains`` and ``lacks`` (SMARTS that the Murcko scaffold has or has not),
            and of clients ``name``.
        label: one of :data:`LABELS`; molecules fall into so many ``classes`` at equal shares of the source.
        source_examples, client_examples, test_examples: so many molecules of the source, of each client to adapt to,
            and of each client to be measured on; where there are fewer, in these proportions.
        hidden, layers: width and rounds of messages of the graph encoder.

    Raises:
        GraphgenError: an unknown key or label, no data, or a selection that leaves too little.
    """
    if label not in LABELS:
        raise GraphgenError(f"label {label!r}: choose one of {', '.join(LABELS)}")
    measure = LABELS[label]
    chosen = _select(source, seed, 0, source_examples)
    values = _values(chosen, measure)
    inner = torch.linspace(0, 1, classes + 1, dtype=torch.float64)[1:-1]
    bounds = values.quantile(inner)
    own = Labelled(Molecules(chosen), torch.bucketize(values, bounds))
    domains = []
    for k, client in enumerate(clients, start=1):
        found = _select(client, seed, k, client_examples + test_examples)
        labels = torch.bucketize(_values(found, measure), bounds)
        pieces = first_so_many(torch.arange(len(found)), client_examples, test_examples)
        learning, test = (Labelled(Molecules(found.take(at)), labels[at]) for at in pieces)
        domains.append(Domain(str(client.get("name", client.get("data"))), learning, test))
    ends = ["", *(f"{bound:.2f}" for bound in bounds.tolist()), ""]
    names = tuple(f"{label} {low}..{high}" for low, high in pairwise(ends))
    make = partial(GraphEncoder, len(VOCABULARY.atoms), hidden=hidden, layers=layers)
    return Suite(own, tuple(domains), Networks(make, classes), names)


def _select(table: Mapping[str, Any], seed: int, which: int, count: int) -> EncodedMolecules:
    """The first so many of a domain's molecules, in an order that the seed says."""
    import os

    from graphgen.molecules import datasets

    if unknown := table.keys() - set(_KEYS):
        raise GraphgenError(f"{dict(table)}: there is no key {min(unknown)!r}; there are {', '.join(_KEYS)}")
    if "data" not in table:
        raise GraphgenError(f"{dict(table)}: lacks data, a named set or a file")
    data = datasets.load(os.path.expandvars(str(table["data"])))
    low, high = table.get("atoms", (1, 10**6))
    fits = (data.sizes >= low) & (data.sizes <= high)
    found = data.take(fits.nonzero().flatten())
    found = found.take(shuffled(len(found), seed, which))
    wanted = _has_scaffold(table.get("contains"), table.get("lacks"))
    kept: list[int] = []
    known = set(VOCABULARY.atoms)
    for k in range(len(found)):
        if len(kept) == count:
            break
        if set(found.graph(k).atoms) <= known and wanted(found.smiles(k)):
            kept.append(k)
    if len(kept) < 2:
        raise GraphgenError(f"{dict(table)}: leaves {len(kept)} molecules; select more")
    return found.take(kept).relabelled(VOCABULARY)


def _has_scaffold(contains: str | None, lacks: str | None) -> Callable[[str], bool]:
    if contains is None and lacks is None:
        return lambda _: True
    from rdkit.Chem import MolFromSmarts, MolFromSmiles
    from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

    patterns = [(MolFromSmarts(text), has) for text, has in ((contains, True), (lacks, False)) if text is not None]
    if any(pattern is None for pattern, _ in patterns):
        raise GraphgenError(f"contains {contains!r}, lacks {lacks!r}: not SMARTS")

    def wanted(smiles: str) -> bool:
        scaffold = GetScaffoldForMol(MolFromSmiles(smiles))
        return all(scaffold.HasSubstructMatch(pattern) == has for pattern, has in patterns)

    return wanted


def _values(data: EncodedMolecules, measure: Callable[[Any], float]) -> Tensor:
    from rdkit.Chem import MolFromSmiles

    return torch.tensor([measure(MolFromSmiles(data.smiles(k))) for k in range(len(data))], dtype=torch.float64)


def _logp(mol: Any) -> float:
    from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors

    return CalcCrippenDescriptors(mol)[0]


def _logp_per_atom(mol: Any) -> float:
    return _logp(mol) / mol.GetNumHeavyAtoms()


def _logp_for_size(mol: Any) -> float:
    # The line is least squares on 4,000 molecules of ZINC250k.
    return _logp(mol) - (0.1218 * mol.GetNumHeavyAtoms() - 0.330)


def _polar(mol: Any) -> float:
    from rdkit.Chem.rdMolDescriptors import CalcTPSA

    return CalcTPSA(mol) / mol.GetNumHeavyAtoms()


def _qed(mol: Any) -> float:
    from rdkit.Chem.QED import qed

    return qed(mol)


def _rings(mol: Any) -> float:
    # Between two counts, so that no bound falls on one.
    return mol.GetRingInfo().NumRings() + math.pi / 10


LABELS: dict[str, Callable[[Any], float]] = {
    "logp": _logp,
    "logp-per-atom": _logp_per_atom,
    "logp-for-size": _logp_for_size,
    "polar-surface-per-atom": _polar,
    "qed": _qed,
    "rings": _rings,
}
"""What a class is a range of.

Crippen's log P, that by heavy atom, or less what ZINC250k's molecules of as many heavy atoms have on average; the polar
surface by heavy atom, square angstrom; QED; the number of rings.
"""
