"""Maximum mean discrepancy under the neighbourhood subgraph pairwise distance kernel (NSPDK).

Costa & De Grave, "Fast neighborhood subgraph pairwise distance kernel", ICML 2010, with the neighbourhood
invariant, the context features and the parameters that GDSS and its successors use. The kernel is a product
of feature vectors, so the mean of a kernel matrix is the product of two mean vectors: the discrepancy over all
pairs of molecules is exact and no matrix is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphgen.metrics.describe import Description

RADIUS = DISTANCE = 4
_U64 = np.uint64
_MOLECULES = 512
# How a feature and the molecule it occurs in share 64 bits.
_BALL_BITS, _CELL_BITS = 24, 6
_FAR = DISTANCE + 1


Group = tuple[int, NDArray[np.int8], NDArray[np.uint64]]


class Mean(NamedTuple):
    """The mean feature vector of a set: features in order, and a value for each."""

    features: NDArray[np.uint64]
    values: NDArray[np.float64]


def mmd(a: Description, b: Description) -> float:
    """Squared MMD between two sets, V-statistic: mean k(a, a) + mean k(b, b) - 2 mean k(a, b), all pairs.

    k is the normalised NSPDK of radius and distance up to 4. For r and d in 0..4 and every ordered pair of
    atoms (v, u) at d bonds, it counts the pair of balls {ball_r(v), ball_r(u)} and, as context, ball_r(u)
    alone. ball_r(v) is known by what lies at each distance up to r: the multiset of atoms (element, degree)
    and of bonds (order; 1 for aromatic), and exists if some atom is exactly r bonds away. Counts are scaled to
    length 1 for each (r, d), then together. Charges are not seen. 0 is best, and equal sets of finite size
    from one source are above it by about 1/size.

    Raises:
        ValueError: a set is empty.
    """
    return discrepancy(*mean_vectors([a, b]))


def mean_vectors(sets: Sequence[Description]) -> list[Mean]:
    """The mean feature vector of each set, comparable with the others of this call.

    Raises:
        ValueError: a set is empty, or they have more than 16 million different balls of one radius.
    """
    if not all(map(len, sets)):
        raise ValueError("a set is empty")
    grouped = [list(_groups(x)) for x in sets]
    balls = np.concatenate([found for groups in grouped for _, _, found in groups], axis=1)
    known = [np.unique(row) for row in balls]
    if max(map(len, known)) >= 1 << _BALL_BITS:
        raise ValueError("too many different neighbourhoods; compare fewer molecules")
    # Most of the work is in sorts, which leave Python free to do another set's.
    with ThreadPoolExecutor(len(sets)) as pool:
        return list(pool.map(_mean_vector, grouped, map(len, sets), repeat(known)))


def discrepancy(a: Mean, b: Mean) -> float:
    """Squared distance of two mean feature vectors."""
    features = np.concatenate((a.features, b.features))
    _, difference = _summed(features, np.concatenate((a.values, -b.values)))
    return float(difference @ difference)


def _groups(x: Description) -> Iterator[Group]:
    """Molecules of equal size together: (their number, distances [B, n, n], balls [5, B n])."""
    sizes = np.diff(x.node_ptr)
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        for start in range(0, len(members), _MOLECULES):
            rows = members[start : start + _MOLECULES]
            bonds, owner = _bonds(x, rows)
            distances = _distances(len(rows), int(size), bonds, owner)
            elements = x.elements[x.node_ptr[rows][:, None] + np.arange(size)]
            yield len(rows), distances, _balls(elements, bonds, owner, distances)


def _bonds(x: Description, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.diff(x.bond_ptr)[rows]
    owner = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return x.bonds[x.bond_ptr[rows][owner] + within], owner


def _distances(count: int, size: int, bonds: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.int8]:
    """Bonds between any two atoms, 5 for what is farther than 4."""
    adjacent = np.zeros((count, size, size), np.float32)
    adjacent[owner, bonds[:, 0], bonds[:, 1]] = adjacent[owner, bonds[:, 1], bonds[:, 0]] = 1
    distances = np.where(np.eye(size, dtype=bool), 0, _FAR).astype(np.int8).repeat(count).reshape(size, size, count)
    distances = np.ascontiguousarray(distances.transpose(2, 0, 1))
    reached = np.broadcast_to(np.eye(size, dtype=np.float32), adjacent.shape)
    for steps in range(1, DISTANCE + 1):
        reached = ((reached @ adjacent > 0) & (distances == _FAR)).astype(np.float32)
        distances[reached > 0] = steps
    return distances


def _balls(
    elements: NDArray[np.int64],
    bonds: NDArray[np.int64],
    owner: NDArray[np.int64],
    distances: NDArray[np.int8],
) -> NDArray[np.uint64]:
    """[5, B n] uint64: the ball of each radius around each atom, 0 where there is none."""
    degree = (distances == 1).sum(2)
    atoms = _mixed(elements.astype(_U64) << _U64(8) | degree.astype(_U64))
    orders = _mixed(np.where(bonds[:, 2] == 3, 0, bonds[:, 2]).astype(_U64) + _U64(1 << 40))
    first, second = (np.take_along_axis(distances[owner], bonds[:, k, None, None], 2)[..., 0] for k in (0, 1))
    near = np.minimum(first, second)
    ptr = np.searchsorted(owner, np.arange(len(elements) + 1))
    found = np.zeros((RADIUS + 1, *elements.shape), _U64)
    inside = np.zeros(elements.shape, _U64)
    for radius in range(RADIUS + 1):
        at = distances == radius
        # A sum of well-mixed numbers stands for a multiset, whatever the order.
        inside = _mixed(inside * _U64(3) + np.where(at, atoms[:, None, :], _U64(0)).sum(2, dtype=_U64))
        found[radius] = np.where(at.any(2), inside | _U64(1), _U64(0))
        running = np.zeros((len(bonds) + 1, elements.shape[1]), _U64)
        np.cumsum(np.where(near == radius, orders[:, None], _U64(0)), axis=0, out=running[1:])
        inside = _mixed(inside * _U64(5) + np.diff(running[ptr], axis=0))
    return found.reshape(RADIUS + 1, -1)


def _mean_vector(groups: Sequence[Group], size: int, known: list[NDArray[np.uint64]]) -> Mean:
    parts = [_sum_of_vectors(*group, known) for group in groups]
    features, values = _summed(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return Mean(features, values / size)


def _sum_of_vectors(
    count: int, distances: NDArray[np.int8], balls: NDArray[np.uint64], known: list[NDArray[np.uint64]]
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """The feature vectors of a group, each of length 1, added up: features and values."""
    size = distances.shape[1]
    molecule, v, u = np.nonzero(distances <= DISTANCE)
    apart = distances[molecule, v, u].astype(_U64)
    v, u = molecule * size + v, molecule * size + u
    cells: list[NDArray[np.uint64]] = []
    for radius in range(RADIUS + 1):
        # From 1, so that 0 can stand for no partner; a ball that is not there has id 0 as well.
        ids = np.where(balls[radius] > 0, np.searchsorted(known[radius], balls[radius]) + 1, 0).astype(_U64)
        one, other = ids[v], ids[u]
        both = (one > 0) & (other > 0)
        one, other = one[both], other[both]
        cell = molecule[both].astype(_U64) << _U64(_CELL_BITS) | apart[both] * _U64(RADIUS + 1) + _U64(radius)
        pair = np.minimum(one, other) << _U64(_BALL_BITS) | np.maximum(one, other)
        cells += [cell << _U64(2 * _BALL_BITS) | pair, cell << _U64(2 * _BALL_BITS) | other]
    occurring = np.concatenate(cells)
    occurring.sort()
    starts = _run_starts(occurring)
    features, counts = occurring[starts], np.diff(np.append(starts, len(occurring))).astype(np.float64)
    blocks = _run_starts(features >> _U64(2 * _BALL_BITS))
    length = np.sqrt(np.add.reduceat(counts**2, blocks))
    owner = (features[blocks] >> _U64(2 * _BALL_BITS + _CELL_BITS)).astype(np.int64)
    # Every block has length 1, so all of a molecule's together have the root of their number.
    length *= np.sqrt(np.bincount(owner, minlength=count))[owner]
    values = counts / np.repeat(length, np.diff(np.append(blocks, len(features))))
    return _summed(features & _U64((1 << (2 * _BALL_BITS + _CELL_BITS)) - 1), values)


def _run_starts(ordered: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _summed(keys: NDArray[np.uint64], values: NDArray[np.float64]) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    order = np.argsort(keys)
    keys, values = keys[order], values[order]
    starts = _run_starts(keys)
    return keys[starts], np.add.reduceat(values, starts)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits that leaves no trace of the input's order (the finaliser of splitmix64)."""
    x = x + _U64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))
