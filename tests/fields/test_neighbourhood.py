import pytest
import torch

from graphgen import GraphBatch
from graphgen.fields import NeighbourhoodField


def bonded(sizes, seed=0, types=3):
    """Chains with a few extra bonds, both directions of each."""
    generator = torch.Generator().manual_seed(seed)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    pairs, kinds = [], []
    for first, size in zip(ptr.tolist(), sizes, strict=False):
        bonds = {(i, i + 1) for i in range(size - 1)}
        bonds |= {(0, size - 1)} if size > 3 else set()
        for u, v in sorted(bonds):
            kind = int(torch.randint(0, types, (1,), generator=generator))
            pairs += [(first + u, first + v), (first + v, first + u)]
            kinds += [kind, kind]
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()
    return GraphBatch.from_edge_index(edges, int(ptr[-1]), ptr=ptr, edge_attr=torch.tensor(kinds, dtype=torch.int64))


@pytest.fixture
def field():
    torch.manual_seed(0)
    return NeighbourhoodField(channels=4, edge_types=3, hidden=24, layers=2, context_layers=2)


def test_renaming_the_atoms_renames_the_result(field):
    graph = bonded([7])
    x, t = torch.randn(7, 4), torch.tensor([0.3])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    new_name = order.argsort()
    renamed = GraphBatch.from_edge_index(new_name[graph.edge_index], 7, edge_attr=graph.edge_attr)
    assert torch.allclose(field(t, x, graph)[order], field(t, x[order], renamed), atol=1e-6)


def test_a_molecule_does_not_notice_its_batch_mates(field):
    sizes = [5, 1, 9, 3, 8]
    x, t = torch.randn(26, 4), torch.rand(5)
    together = field(t, x, bonded(sizes))
    graph = bonded(sizes)
    for g, (first, last) in enumerate(zip(graph.ptr, graph.ptr[1:], strict=False)):
        mine = (graph.target >= first) & (graph.target < last)
        alone = GraphBatch.from_edge_index(
            graph.edge_index[:, mine] - first, int(last - first), edge_attr=graph.edge_attr[mine]
        )
        assert torch.equal(together[first:last], field(t[g : g + 1], x[first:last], alone))


def test_time_neighbours_and_bond_types_matter(field):
    graph, x = bonded([6]), torch.randn(6, 4)
    base = field(torch.tensor([0.1]), x, graph)
    assert not torch.allclose(base, field(torch.tensor([0.9]), x, graph))
    moved = x.clone()
    moved[2] += 1
    assert not torch.allclose(base[3], field(torch.tensor([0.1]), moved, graph)[3])
    other = GraphBatch.from_edge_index(graph.edge_index, 6, edge_attr=(graph.edge_attr + 1) % 3)
    assert not torch.allclose(base, field(torch.tensor([0.1]), x, other))


def test_layers_bound_how_far_an_atom_sees():
    torch.manual_seed(0)
    field = NeighbourhoodField(channels=2, edge_types=1, hidden=8, layers=1, context_layers=0)
    chain = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    graph = GraphBatch.from_edge_index(chain, 4, edge_attr=torch.zeros(6, dtype=torch.int64))
    jacobian = torch.func.jacrev(lambda x: field(torch.zeros(1), x, graph))(torch.randn(4, 2))
    reach = jacobian.abs().sum((1, 3)) > 0
    near = torch.eye(4, dtype=torch.bool) | torch.zeros(4, 4, dtype=torch.bool).index_put(
        (chain[1], chain[0]), torch.tensor(True)
    )
    assert torch.equal(reach, near)


def test_bonds_are_asked_for(field):
    with pytest.raises(ValueError, match="bond type"):
        field(torch.zeros(1), torch.zeros(2, 4), GraphBatch.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 2))
