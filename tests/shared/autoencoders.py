"""What the tests of both variational autoencoders need: molecules, orders to shuffle, and the exact marginal."""

import math

import torch

from graphgen import GraphBatch
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import Encoder, MoleculeBatch
from graphgen.molecules.vocabulary import MoleculeGraph, Vocabulary

TWO = Vocabulary((("C", 0), ("N", 0)))
THREE = Vocabulary((*TWO.atoms, ("O", 0)))
OUTCOMES = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4))
"""All labels of two atoms of two types and of their pair."""


def chains():
    """Chains of carbon that end in a double bond to oxygen."""
    encoder = Encoder()
    for k in range(60):
        size = 2 + k % 5
        atoms = (("C", 0),) * (size - 1) + (("O", 0),)
        bonds = tuple((i, i + 1, int(i == size - 2)) for i in range(size - 1))
        encoder.add(MoleculeGraph(atoms, bonds), "C" * (size - 1) + "O" + str(k))
    return encoder.finish("chains")


def sixteen():
    """Each of OUTCOMES once."""
    encoder = Encoder()
    for one, other, kind in OUTCOMES.tolist():
        atoms = (TWO.atoms[one], TWO.atoms[other])
        encoder.add(MoleculeGraph(atoms, ((0, 1, kind - 1),) if kind else ()), f"{one}{other}{kind}")
    return encoder.finish("sixteen").relabelled(TWO)


def shuffled(batch, seed=0):
    """The same molecules with their atoms in another order, and which atom of the batch stands at each place."""
    graph = batch.graph
    keys = torch.rand(len(batch.atoms), generator=torch.Generator().manual_seed(seed))
    order = (graph.batch + keys).argsort()
    place = order.argsort()
    edges = torch.stack((place[graph.col], place[graph.target]))
    renamed = GraphBatch.from_edge_index(edges, len(order), ptr=graph.ptr, edge_attr=graph.edge_attr)
    return MoleculeBatch(renamed, batch.atoms[order], batch.ids), order


def rings(count=40, seed=0):
    """Rings of 4 to 7 atoms, each with a tail, atoms and bonds at random: hardly any two atoms are alike."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(5, 9, (count,), generator=generator)
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    pairs = [
        (first + i, first + (i + 1) % (size - 1) if i < size - 1 else first)
        for first, size in zip(ptr.tolist(), sizes.tolist(), strict=False)
        for i in range(size)
    ]
    bonds = torch.tensor(pairs).t()
    kinds = torch.randint(0, 3, (bonds.shape[1],), generator=generator)
    graph = GraphBatch.from_edge_index(
        torch.cat((bonds, bonds.flip(0)), 1), int(ptr[-1]), ptr=ptr, edge_attr=kinds.repeat(2)
    )
    return MoleculeBatch(graph, torch.randint(0, 3, (int(ptr[-1]),), generator=generator), torch.arange(count))


def marginal(model, points=6000, reach=8.0):
    """[16] exact log-probability of OUTCOMES as a model of one latent number decodes them, by quadrature."""
    z = torch.linspace(-reach, reach, points, dtype=model.dtype)
    ptr = 2 * torch.arange(points + 1)
    with torch.no_grad():
        atoms, pairs = model.decode(z.unsqueeze(1), ptr)
    atoms, pairs = atoms.log_softmax(1).view(points, 2, -1), pairs.log_softmax(1)
    one, other, pair = OUTCOMES.T
    given = atoms[:, 0, one] + atoms[:, 1, other] + pairs[:, pair]
    prior = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) + math.log(2 * reach / (points - 1))
    return (given + prior.unsqueeze(1)).logsumexp(0)


def isomers(batch, order):
    """Whether orders [N] of a batch's atoms make the same labelled graphs as its own."""
    given, found = CompleteGraphs.of(batch), CompleteGraphs.of(batch).reordered(order)
    return bool((given.atoms == found.atoms).all()) and bool((given.pairs == found.pairs).all())
