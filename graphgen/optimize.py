"""Better molecules on given bonds: a linear map from latent to property, and steps along it.

As the modular flow does it, with two differences. The map must serve skeletons of every size, so that a weight belongs
to a kind of place in a skeleton (an atom's number of bonds and their orders' sum), not to an atom's number. And since
the best of many tries is better than one whatever the direction, as many tries in a random direction stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.latent import check_vocabulary, decode, encode
from graphgen.metrics.controls import bond_order_sums
from graphgen.metrics.properties import logp, qed
from graphgen.molecules.encoded import EncodedMolecules, MoleculeBatch
from graphgen.progress import progress_bar

_MOST_BONDS, _HIGHEST_ORDER = 4, 6  # higher ones count as these
_PLACES = (_MOST_BONDS + 1) * (_HIGHEST_ORDER + 1)
_RIDGE = 1.0  # molecules' worth of prior that a weight is 0

Property = Callable[[str], float]


PROPERTIES: dict[str, Property] = {"qed": qed, "logp": logp}


@dataclass(frozen=True)
class LatentMap:
    """``property = what the skeleton's places say + sum over atoms of weight[place of the atom] . z of the atom``.

    Attributes:
        weight: [places, c].
        r2: share of the variance of held-out molecules that the part in z explains beyond the places alone.
    """

    weight: Tensor
    r2: float

    def direction(self, batch: MoleculeBatch) -> Tensor:
        """[N, c] the way up, of length 1 per molecule."""
        return _of_length_one(self.weight[places(batch)], batch)


def places(batch: MoleculeBatch) -> Tensor:
    """[N] int64 the kind of place that each atom's bonds make."""
    bonds = batch.graph.degree.clamp(max=_MOST_BONDS).long()
    return bonds * (_HIGHEST_ORDER + 1) + bond_order_sums(batch.graph).clamp(max=_HIGHEST_ORDER).long()


def fit(
    model: Any, molecules: EncodedMolecules, values: Sequence[float], seed: int = 0, batch_size: int = 512
) -> LatentMap:
    """Ridge regression of a property on latents; every fifth molecule is held out for r2.

    Args:
        values: the property of each molecule.

    Raises:
        GraphgenError: too few molecules, or labels of another vocabulary than the model's.
    """
    if len(molecules) < 20 or len(values) != len(molecules):
        raise GraphgenError(f"a map from latents to a property needs at least 20 molecules, got {len(molecules)}")
    check_vocabulary(model, molecules)
    structure, latents = [], []
    for indices in torch.arange(len(molecules)).split(batch_size):
        batch = molecules.batch(indices)
        z = encode(model, batch, seed).double()
        cell = batch.graph.batch.long() * _PLACES + places(batch)
        counts = torch.bincount(cell, minlength=len(indices) * _PLACES).view(len(indices), _PLACES).double()
        sums = z.new_zeros(len(indices) * _PLACES, z.shape[1]).index_add_(0, cell, z)
        structure.append(torch.cat([counts, torch.ones(len(indices), 1, dtype=torch.float64)], 1))
        latents.append(sums.view(len(indices), -1))
    known, moved = torch.cat(structure), torch.cat(latents)
    target = torch.tensor(values, dtype=torch.float64)
    held_out = torch.arange(len(molecules)) % 5 == 0
    both = torch.cat([known, moved], 1)
    weights = _ridge(both[~held_out], target[~held_out])
    without = _ridge(known[~held_out], target[~held_out])
    missed = (target - both @ weights)[held_out].square().sum()
    missed_without = (target - known @ without)[held_out].square().sum()
    columns = moved.shape[1] // _PLACES
    return LatentMap(
        weights[known.shape[1] :].view(_PLACES, columns).to(torch.float32),
        float(1 - missed / missed_without.clamp(min=1e-12)),
    )


def _ridge(rows: Tensor, target: Tensor) -> Tensor:
    gram = rows.T @ rows + _RIDGE * torch.eye(rows.shape[1], dtype=rows.dtype)
    return torch.linalg.solve(gram, rows.T @ target)


@dataclass(frozen=True)
class Optimized:
    """One molecule and the best that was found on its bonds.

    Attributes:
        molecule: its number among those given.
        before, after: SMILES; after is before where nothing better was found.
        value_before, value_after: the property.
        by_chance: the best value of as many steps in a random direction.
    """

    molecule: int
    before: str
    after: str
    value_before: float
    value_after: float
    by_chance: float


def optimize(
    model: Any,
    molecules: EncodedMolecules,
    latent_map: LatentMap,
    property: Property,
    lengths: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    seed: int = 0,
    steps: int = 20,
    batch_size: int = 256,
    device: str = "cpu",
    progress: bool = True,
) -> list[Optimized]:
    """Walk from every molecule's latent up the map, decode, and keep the best that is valid by the strict rule.

    Args:
        property: of a SMILES; higher is better.
        lengths: of the steps, in units of the noise; each is one try.

    Returns:
        One record per molecule, in order.
    """
    from graphgen.molecules.codec import canonical_smiles
    from graphgen.molecules.codec import decode as to_mol

    check_vocabulary(model, molecules)
    model.to(device).eval()
    types = model.vocabulary.atoms
    found: list[Optimized] = []

    def best(labels: Sequence[Tensor], at: slice, bonds: Any, start: tuple[str, float]) -> tuple[str, float]:
        for tried in labels:
            try:
                smiles = canonical_smiles(to_mol([types[a] for a in tried[at].tolist()], bonds))
            except ValueError:
                continue
            value = property(smiles)
            if value > start[1]:
                start = smiles, value
        return start

    with progress_bar("optimizing", len(molecules), progress) as advance:
        for indices in torch.arange(len(molecules)).split(batch_size):
            batch = molecules.batch(indices, device)
            z = encode(model, batch, seed, steps)
            up = latent_map.direction(batch).to(z)
            noise = ops.normal(batch.graph.ptr, z.shape[1], seed, ops.noise.Stream.WALK, 0, batch.ids, z.dtype)
            chance = _of_length_one(noise, batch)
            decoded = [
                [decode(model, z + length * way, batch.graph, steps).cpu() for length in lengths]
                for way in (up, chance)
            ]
            ends = batch.graph.ptr.tolist()
            for k, index in enumerate(indices.tolist()):
                at, bonds = slice(ends[k], ends[k + 1]), molecules.graph(index).bonds
                before = molecules.smiles(index)
                start = before, property(before)
                after = best(decoded[0], at, bonds, start)
                by_chance = best(decoded[1], at, bonds, start)
                found.append(Optimized(index, before, after[0], start[1], after[1], by_chance[1]))
            advance(len(indices))
    return found


def _of_length_one(rows: Tensor, batch: MoleculeBatch) -> Tensor:
    length = ops.graph_dot(rows, rows, batch.graph.ptr).sqrt().clamp(min=1e-12)
    return ops.graph_scale(1 / length, rows, batch.graph.ptr)
