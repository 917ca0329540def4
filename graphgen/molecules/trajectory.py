"""How a molecule came to be: what a sampler thought of its atoms and bonds on the way. Needs no RDKit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.molecules.vocabulary import BOND_TYPES


class Frame(NamedTuple):
    """A batch on its way, as a sampler hands it over.

    Attributes:
        time: 0 is noise, 1 the molecule, whatever the sampler's own clock says.
        atoms: [N, A] probability of every atom type at every node, as the sampler sees it at that time.
        bonds: [E, 4] probability of no bond, single, double, triple for every edge of the graph that was sampled on;
            None where bonds are given.
    """

    time: float
    atoms: Tensor
    bonds: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One molecule of n atoms and m pairs of them at T times.

    Attributes:
        times: T numbers from 0, noise, to 1, the molecule.
        atoms: [T, n, A] probability of every atom type.
        names: the name of every atom type.
        pairs: m pairs of atoms that may be bonded.
        bonds: [T, m, 4] probability of no bond, single, double, triple; the same at all times where bonds are given.
    """

    times: Sequence[float]
    atoms: Tensor
    names: Sequence[str]
    pairs: Sequence[tuple[int, int]]
    bonds: Tensor

    def __post_init__(self) -> None:
        expected = [len(self.times), len(self.pairs), 1 + len(BOND_TYPES)]
        if list(self.bonds.shape) != expected:
            raise ValueError(f"bonds: expected shape {expected}, got {list(self.bonds.shape)}")
        if self.atoms.dim() != 3 or self.atoms.shape[::2] != (len(self.times), len(self.names)):
            raise ValueError(f"atoms: expected [{len(self.times)}, n, {len(self.names)}], got {list(self.atoms.shape)}")


def trajectories(frames: Sequence[Frame], graph: GraphBatch, names: Sequence[str]) -> list[Trajectory]:
    """The frames of a batch, one molecule at a time.

    Args:
        frames: at least one, earliest first.
        graph: what was sampled on, with both directions of every bond or pair.
        names: the name of every atom type.
    """
    times = [frame.time for frame in frames]
    atoms = torch.stack([frame.atoms for frame in frames]).cpu()
    graph = graph.to("cpu")
    target = torch.repeat_interleave(torch.arange(graph.num_nodes), graph.rowptr.diff().long())
    if frames[0].bonds is None:
        assert graph.edge_attr is not None, "given bonds carry their types"
        kinds = torch.nn.functional.one_hot(graph.edge_attr.long() + 1, 1 + len(BOND_TYPES)).to(atoms.dtype)
        bonds = kinds.expand(len(frames), *kinds.shape)
    else:
        bonds = torch.stack([frame.bonds for frame in frames if frame.bonds is not None]).cpu()
    once = (graph.col < target).nonzero().flatten()
    owner = graph.batch[target[once]]
    found = []
    for i, (first, last) in enumerate(zip(graph.ptr[:-1].tolist(), graph.ptr[1:].tolist(), strict=True)):
        edges = once[owner == i]
        pairs = torch.stack((graph.col[edges], target[edges]), 1) - first
        found.append(
            Trajectory(times, atoms[:, first:last], names, [tuple(pair) for pair in pairs.tolist()], bonds[:, edges])
        )
    return found
