import pytest
import torch

from graphgen import GraphBatch, ops
from graphgen.fields import MESSAGES, NeighbourhoodField
from graphgen.fields.grand import diffuse


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


@pytest.fixture(params=MESSAGES)
def field(request):
    torch.manual_seed(0)
    return NeighbourhoodField(channels=4, edge_types=3, hidden=24, layers=2, context_layers=2, messages=request.param)


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


@pytest.mark.parametrize("messages", MESSAGES)
def test_layers_bound_how_far_an_atom_sees(messages):
    torch.manual_seed(0)
    field = NeighbourhoodField(channels=2, edge_types=1, hidden=8, layers=1, context_layers=0, messages=messages)
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


@pytest.mark.parametrize("messages", MESSAGES)
def test_divergence_is_the_trace_of_the_dense_jacobian(messages):
    torch.manual_seed(0)
    field = NeighbourhoodField(3, 3, hidden=8, layers=2, context_layers=1, messages=messages).double()
    graph = bonded([4, 1, 5])
    x, t = torch.randn(10, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    bound = field.bind(graph)
    jacobian = torch.autograd.functional.jacobian(lambda x: bound(t, x), x)
    diagonal = torch.einsum("ncnc->n", jacobian)
    expected = torch.stack([part.sum() for part in diagonal.split([4, 1, 5])])
    _, trace, _ = ops.divergence(lambda x: bound(t, x), x, graph, "exact", reach=field.reach)
    assert torch.allclose(trace, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("messages", MESSAGES)
def test_a_likelihoods_gradient_goes_through_the_field(messages):
    torch.manual_seed(0)
    field = NeighbourhoodField(2, 3, hidden=8, layers=1, context_layers=0, messages=messages).double()
    graph = bonded([3, 2])
    x, t = torch.randn(5, 2, dtype=torch.float64, requires_grad=True), torch.rand(2, dtype=torch.float64)

    def trace(x):
        return ops.divergence(lambda x: field(t, x, graph), x, graph, "hutchinson", seed=3, reach=field.reach)[1]

    assert torch.autograd.gradcheck(trace, x)


def test_diffusion_at_fixed_attention_has_a_trace_in_closed_form():
    graph = GraphBatch.from_edge_index(torch.tensor([[0, 1, 1, 2, 0], [1, 0, 2, 1, 0]]), 4, ptr=torch.tensor([0, 3, 4]))
    attention = ops.edge_softmax(torch.randn(5, 2, dtype=torch.float64), graph)
    h = torch.randn(4, 6, dtype=torch.float64)
    _, trace, _ = ops.divergence(lambda h: diffuse(h.view(4, 2, 3), attention, graph).view(4, 6), h, graph, "exact")
    to_itself = attention[graph.col == graph.target].sum(0) * 3
    expected = torch.tensor([float(to_itself.sum()) - 3 * 6, 0.0], dtype=torch.float64)  # the last atom has no edge
    assert torch.allclose(trace, expected, rtol=0, atol=1e-12)


def test_unknown_messages_are_refused():
    with pytest.raises(ValueError, match="messages"):
        NeighbourhoodField(2, 3, messages="rbv")
