import pytest
import torch
from autoencoders import OUTCOMES, THREE, chains, isomers, rings, shuffled, sixteen

from graphgen import GraphBatch, GraphgenError
from graphgen.models import GraphVAE
from graphgen.models.matching import MATCHINGS, Laws, missed
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.molecules.orders import canonical_order
from graphgen.solvers.assignment import assign


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


# ---- the order of atoms ---------------------------------------------------------------------------------------------


def in_canonical_order(batch):
    return CompleteGraphs.of(batch).reordered(canonical_order(batch.graph, batch.atoms))


def test_the_canonical_order_is_a_walk_in_depth_that_renaming_atoms_does_not_change():
    batch = rings(200)
    other, renamed = shuffled(batch)
    assert not isomers(batch, renamed)
    given, found = in_canonical_order(batch), in_canonical_order(other)
    assert torch.equal(given.atoms, found.atoms) and torch.equal(given.pairs, found.pairs)
    order = canonical_order(batch.graph, batch.atoms)
    assert torch.equal(batch.graph.batch[order], batch.graph.batch)
    assert torch.equal(order.sort().values, torch.arange(len(order)))
    # Every atom but the first is bonded to one before it.
    for molecule in given.molecules(THREE):
        assert {v for _, v, _ in molecule.bonds} == set(range(1, len(molecule.atoms)))


def test_symmetric_atoms_and_pieces_are_read_the_same_whatever_the_order():
    """A ring of carbons, all atoms alike; a prism, whose atoms are alike but not their bonds; two chains."""
    ring = [(i, (i + 1) % 6) for i in range(6)]
    prism = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (0, 3), (1, 4), (2, 5)]
    for bonds in (ring, prism, [(0, 1), (2, 3), (3, 4)]):
        found = set()
        for seed in range(20):
            batch, _ = shuffled(one_molecule(bonds, 6), seed)
            whole = in_canonical_order(batch)
            found.add(tuple(whole.pairs.tolist()))
        assert len(found) == 1


def test_the_mirror_of_a_molecule_of_two_atoms_is_read_as_the_molecule():
    """In C=N both ends are equally central, and their labels alone tell them apart."""
    whole = in_canonical_order(sixteen().batch(torch.arange(16)))
    read = torch.cat((whole.atoms.view(16, 2), whole.pairs.unsqueeze(1)), 1)
    mirror = [OUTCOMES.tolist().index([b, a, kind]) for a, b, kind in OUTCOMES.tolist()]
    assert torch.equal(read[mirror], read) and len(read.unique(dim=0)) == 12


def one_molecule(bonds, size):
    edges = torch.tensor(bonds).t()
    kinds = torch.zeros(2 * len(bonds), dtype=torch.int64)
    graph = GraphBatch.from_edge_index(torch.cat((edges, edges.flip(0)), 1), size, edge_attr=kinds)
    return MoleculeBatch(graph, torch.zeros(size, dtype=torch.int64), torch.tensor([0]))


# ---- matchings ------------------------------------------------------------------------------------------------------


def test_assignments_are_the_cheapest_of_all():
    cost = torch.randn(50, 5, 5, generator=torch.Generator().manual_seed(1))
    every = torch.cartesian_prod(*[torch.arange(5)] * 5)
    every = every[(every.sort(1).values == torch.arange(5)).all(1)]
    least = torch.stack([cost[:, range(5), row].sum(1) for row in every]).amin(0)
    found = assign(cost)
    assert torch.equal(found.sort(1).values, torch.arange(5).expand(50, 5))
    assert torch.allclose(cost.gather(2, found.unsqueeze(2)).sum((1, 2)), least)
    assert assign(torch.zeros(3, 1, 1)).tolist() == [[0]] * 3


def sure_of(whole, types, certainty=4.0):
    """Laws of a decoder that says this."""
    return Laws(
        certainty * torch.nn.functional.one_hot(whole.atoms, types).float(),
        certainty * torch.nn.functional.one_hot(whole.pairs, 4).float(),
    )


@pytest.mark.parametrize("matching", ["max-pool", "hungarian"])
def test_a_matching_finds_the_order_in_which_a_decoder_says_the_molecule(matching):
    batch = rings()
    other, order = shuffled(batch)
    said = CompleteGraphs.of(other)
    laws = sure_of(said, 3)
    found = MATCHINGS[matching](batch, CompleteGraphs.of(batch), laws)
    assert torch.equal(batch.graph.batch[found], batch.graph.batch)
    assert torch.equal(found.sort().values, torch.arange(len(found)))
    right = missed(CompleteGraphs.of(batch).reordered(order), laws)
    reached = missed(CompleteGraphs.of(batch).reordered(found), laws)
    given = missed(CompleteGraphs.of(batch), laws)
    assert float((reached < right + 1e-3).float().mean()) > 0.9
    assert float(given.mean()) > float(reached.mean()) + 10


@pytest.mark.parametrize("matching", ["canonical", "max-pool", "hungarian"])
def test_each_matching_trains(matching):
    data = chains()
    torch.manual_seed(0)
    model = GraphVAE(data.vocabulary, latent=4, hidden=8, layers=2, matching=matching, kl_weight=0.1)
    model.fit_prior(data)
    batch = data.batch(range(10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = model.loss(batch, 0, step)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_molecule_larger_than_the_decoder_is_refused():
    data = chains()
    with pytest.raises(GraphgenError, match="6 atoms, and this graph-vae has places for 5; .*--max-atoms 6"):
        GraphVAE(data.vocabulary, max_atoms=5).fit_prior(data)
    with pytest.raises(GraphgenError, match=r"max atoms \(0\)"):
        GraphVAE(data.vocabulary, max_atoms=0)
