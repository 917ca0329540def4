"""The parts of molecules that training decides: connected, of the size asked for, and not of one corner only."""

import torch

from graphgen.molecules.encoded import Encoder
from graphgen.molecules.scaffold import random_part
from graphgen.molecules.vocabulary import MoleculeGraph


def rings(count, size):
    """Molecules that are one ring with a chain of two atoms at its first atom."""
    encoder = Encoder()
    bonds = (*((i, (i + 1) % size, 0) for i in range(size)), (0, size, 0), (size, size + 1, 0))
    for k in range(count):
        encoder.add(MoleculeGraph((("C", 0),) * (size + 2), bonds), f"ring{k}")
    return encoder.finish("rings").batch(torch.arange(count)).graph


def draw(graph, shares, seed=0):
    ties = torch.rand(graph.num_nodes, generator=torch.Generator().manual_seed(seed))
    return random_part(graph, shares, ties).view(len(shares), -1)


def connected(members, size):
    """Whether the members of ``rings`` hang together, by walking from one of them."""
    neighbours = {i: {(i - 1) % size, (i + 1) % size} for i in range(size)} | {size: {0, size + 1}, size + 1: {size}}
    neighbours[0].add(size)
    seen, todo = set(), [next(iter(members))]
    while todo:
        at = todo.pop()
        if at not in seen:
            seen.add(at)
            todo += neighbours[at] & members
    return seen == members


def test_a_part_hangs_together_and_has_its_share_of_the_atoms():
    shares = torch.arange(400) / 399
    part = draw(rings(400, 6), shares)
    assert part.sum(1).tolist() == (shares * 8).ceil().tolist()
    for row in part[1:]:
        assert connected(set(row.nonzero().flatten().tolist()), 6)


def test_every_atom_is_the_first_of_some_and_parts_differ():
    part = draw(rings(2000, 6), torch.full((2000,), 0.125))
    counts = part.sum(0)
    assert counts.sum() == 2000 and bool(((counts - 250).abs() < 4 * 15).all())
    assert len(set(map(tuple, draw(rings(300, 6), torch.full((300,), 0.5)).tolist()))) > 8


def test_what_is_in_pieces_counts_the_piece_of_the_first_atom_first():
    encoder = Encoder()
    for k in range(50):
        encoder.add(MoleculeGraph((("C", 0),) * 5, ((0, 1, 0), (3, 4, 0))), f"pieces{k}")
    part = draw(encoder.finish("pieces").batch(torch.arange(50)).graph, torch.full((50,), 0.4))
    for row in part:
        members = row.nonzero().flatten().tolist()
        assert len(members) == 2 and (2 in members or members in ([0, 1], [3, 4]))


def test_an_empty_batch_has_no_parts():
    graph = rings(1, 3)
    empty = type(graph).from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 0, ptr=torch.zeros(1, dtype=torch.int64))
    assert random_part(empty, torch.zeros(0), torch.zeros(0)).shape == (0,)
