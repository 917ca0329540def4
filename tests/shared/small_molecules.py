"""Molecules small enough to know the answer of: single atoms, and chains whose atoms alternate."""

from __future__ import annotations

import torch

from graphgen import GraphBatch
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.vocabulary import Vocabulary

TWO = Vocabulary((("C", 0), ("N", 0)))
FOUR = Vocabulary((("C", 0), ("O", 0), ("N", 0), ("N", 1)))


def single_atoms(count):
    empty = torch.zeros(2, 0, dtype=torch.int64)
    return GraphBatch.from_edge_index(
        empty, count, ptr=torch.arange(count + 1), edge_attr=torch.zeros(0, dtype=torch.int64)
    )


def chains(sizes, vocabulary=FOUR, seed=0):
    """Chains of these many atoms, with bonds and atoms at random."""
    generator = torch.Generator().manual_seed(seed)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    left = torch.cat([torch.arange(first, first + size - 1) for first, size in zip(ptr, sizes, strict=False)])
    kinds = torch.randint(0, 3, left.shape, generator=generator)
    edges = torch.stack([torch.cat([left, left + 1]), torch.cat([left + 1, left])])
    graph = GraphBatch.from_edge_index(edges, int(ptr[-1]), ptr=ptr, edge_attr=torch.cat([kinds, kinds]))
    atoms = torch.randint(0, len(vocabulary), (int(ptr[-1]),), generator=generator)
    return MoleculeBatch(graph, atoms, torch.arange(len(sizes)) + 40)


def alternating(count=32, size=6):
    """Chains whose every second atom is an N: learnable from the neighbours' state, not from the bonds alone.

    One fair coin per molecule: log(2) / size nats per atom; independent atoms pay log(2).
    """
    batch = chains([size] * count, TWO)
    first = (torch.arange(count) % 2).repeat_interleave(size)
    return batch._replace(atoms=(torch.arange(size).repeat(count) + first) % 2)
