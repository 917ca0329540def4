"""The discrepancy against a slow twin that is written straight from the definition."""

import math
from collections import Counter, deque

import numpy as np
import pytest

pytest.importorskip("rdkit")
from rdkit import Chem

from graphgen.metrics import nspdk
from graphgen.metrics.describe import Description, describe

FIRST = ["CCO", "c1ccccc1O", "CC(=O)Nc1ccc(O)cc1", "C", "C1CC1C#N", "[Na+].[Cl-]", "CC.O"]
SECOND = ["CCN", "c1ccncc1C", "CC(C)(C)OC(=O)N1CCOCC1", "C", "FC(F)(F)c1ccc2[nH]ccc2c1"]


def vector(elements: list[int], bonds: list[list[int]]) -> dict[object, float]:
    neighbours: list[list[int]] = [[] for _ in elements]
    for u, v, _ in bonds:
        neighbours[u].append(v)
        neighbours[v].append(u)
    distances = []
    for start in range(len(elements)):
        reached, waiting = {start: 0}, deque([start])
        while waiting:
            a = waiting.popleft()
            for b in neighbours[a]:
                if b not in reached:
                    reached[b] = reached[a] + 1
                    waiting.append(b)
        distances.append(reached)

    def ball(v: int, radius: int) -> object:
        d = distances[v]
        if radius not in d.values():
            return None
        atoms = [sorted((elements[u], len(neighbours[u])) for u in d if d[u] == k) for k in range(radius + 1)]
        orders = [
            sorted(1 if kind == 3 else kind + 1 for a, b, kind in bonds if a in d and min(d[a], d[b]) == k)
            for k in range(radius)
        ]
        return str((atoms, orders))

    cells = []
    for radius in range(5):
        balls = [ball(v, radius) for v in range(len(elements))]
        for distance in range(5):
            counts: Counter[object] = Counter()
            for v, reached in enumerate(distances):
                for u, steps in reached.items():
                    if steps == distance and balls[v] and balls[u]:
                        counts[radius, distance, tuple(sorted((balls[v], balls[u])))] += 1
                        counts[radius, distance, balls[u]] += 1
            if counts:
                cells.append(counts)
    found: dict[object, float] = {}
    for counts in cells:
        length = math.sqrt(sum(c * c for c in counts.values()) * len(cells))
        found |= {feature: c / length for feature, c in counts.items()}
    return found


def slow_mmd(a: Description, b: Description) -> float:
    def vectors(x: Description) -> list[dict[object, float]]:
        nodes, bonds = x.node_ptr.tolist(), x.bond_ptr.tolist()
        return [
            vector(x.elements[nodes[i] : nodes[i + 1]].tolist(), x.bonds[bonds[i] : bonds[i + 1]].tolist())
            for i in range(len(x))
        ]

    def mean(left: list[dict[object, float]], right: list[dict[object, float]]) -> float:
        return float(np.mean([[sum(v * q.get(f, 0) for f, v in p.items()) for q in right] for p in left]))

    p, q = vectors(a), vectors(b)
    return mean(p, p) + mean(q, q) - 2 * mean(p, q)


def test_agrees_with_the_definition(monkeypatch):
    a, b = describe(FIRST), describe(SECOND)
    expected = slow_mmd(a, b)
    assert nspdk.mmd(a, b) == pytest.approx(expected, rel=1e-12)
    assert nspdk.mmd(b, a) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(nspdk, "_MOLECULES", 2)
    assert nspdk.mmd(a, b) == pytest.approx(expected, rel=1e-12)


def test_nothing_apart():
    assert nspdk.mmd(describe(FIRST), describe(FIRST)) == 0
    assert nspdk.mmd(describe(FIRST), describe(FIRST * 2)) == pytest.approx(0, abs=1e-15)


def test_two_molecules_without_anything_in_common():
    assert nspdk.mmd(describe(["C"]), describe(["N"])) == pytest.approx(2)


def test_atom_order_does_not_matter():
    shuffled = []
    for smiles in SECOND:
        mol = Chem.MolFromSmiles(smiles)
        order = np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist()
        shuffled.append(Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False))
    assert shuffled != SECOND
    assert nspdk.mmd(describe(SECOND), describe(shuffled)) == 0


def test_an_empty_set():
    with pytest.raises(ValueError, match="empty"):
        nspdk.mmd(describe(["C"]), describe([]))
