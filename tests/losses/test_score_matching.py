import pytest
import torch
from torch.autograd import gradcheck

from graphgen import GraphBatch, ops
from graphgen.losses import (
    denoising_score_matching,
    implicit_score_matching,
    reduced_sliced_score_matching,
    sliced_score_matching,
)

SIGMA = 0.5
LOSSES = {
    "implicit": implicit_score_matching,
    "implicit, estimated": lambda *args, **probe: implicit_score_matching(*args, "xtrace", probes=4, **probe),
    "sliced": lambda *args, **probe: sliced_score_matching(*args, probes=2, **probe),
    "sliced, signs": lambda *args, **probe: sliced_score_matching(*args, distribution="rademacher", **probe),
    "sliced, reduced": lambda *args, **probe: reduced_sliced_score_matching(*args, probes=2, **probe),
    "denoising": lambda *args, **probe: denoising_score_matching(*args, SIGMA, **probe),
}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def field(graph, weight, bias):
    def score(x):
        return ops.activation(ops.message_sum(ops.linear(x, weight), x, bias, graph), "tanh") - x

    return score


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def test_implicit_and_sliced_by_the_dense_jacobian(make_graph):
    graph = make_graph(3, sizes=[4, 0, 3])
    x, score = randn(7, 2, seed=1), field(graph, randn(2, 2, seed=2), randn(3, 2, seed=3))
    value, jacobian = score(x), torch.func.jacrev(score)(x).reshape(14, 14)
    nodes = [slice(2 * int(a), 2 * int(b)) for a, b in zip(graph.ptr, graph.ptr[1:], strict=False)]
    half = [0.5 * value.flatten()[s].square().sum() for s in nodes]
    expected = torch.stack([h + jacobian[s, s].trace() for h, s in zip(half, nodes, strict=True)])
    torch.testing.assert_close(implicit_score_matching(score, x, graph), expected)
    v = ops.normal(graph.ptr, 2, 5, ops.noise.Stream.PROBE, dtype=x.dtype).flatten()
    along = [v[s] @ jacobian[s, s] @ v[s] + 0.5 * (v[s] @ value.flatten()[s]) ** 2 for s in nodes]
    torch.testing.assert_close(sliced_score_matching(score, x, graph, seed=5), torch.stack(along))
    reduced = [h + v[s] @ jacobian[s, s] @ v[s] for h, s in zip(half, nodes, strict=True)]
    found = reduced_sliced_score_matching(score, x, graph, distribution="normal", seed=5)
    torch.testing.assert_close(found, torch.stack(reduced))


def test_denoising_is_the_distance_to_the_way_back(make_graph):
    graph = make_graph(3, sizes=[4, 0, 3])
    x, score = randn(7, 2, seed=1), field(graph, randn(2, 2, seed=2), randn(3, 2, seed=3))
    z = ops.normal(graph.ptr, 2, 5, ops.noise.Stream.PATH, dtype=x.dtype)
    sigma = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    each = sigma[graph.batch].unsqueeze(1)
    miss = (score(x + each * z) + z / each).square().sum(1)
    expected = 0.5 * torch.stack([miss[a:b].sum() for a, b in zip(graph.ptr, graph.ptr[1:], strict=False)])
    torch.testing.assert_close(denoising_score_matching(score, x, graph, sigma, seed=5), expected)
    alike = denoising_score_matching(score, x, graph, 0.5, seed=5)
    torch.testing.assert_close(alike[0], expected[0])


def test_all_reach_the_score_of_gaussian_data():
    """Every loss is quadratic in a linear score s(x) = b - A x, so one Newton step finds its least value."""
    count, dim = 40_000, 3
    root = 0.4 * randn(dim, dim, seed=1) + torch.eye(dim, dtype=torch.float64)
    mean, covariance = randn(dim, seed=2), root @ root.t()
    nothing = torch.empty(2, 0, dtype=torch.int64)
    graph = GraphBatch.from_edge_index(nothing, count, ptr=torch.arange(count + 1))
    x = mean + randn(count, dim, seed=3) @ root.t()
    precision = covariance.inverse()
    blurred = (covariance + SIGMA**2 * torch.eye(dim, dtype=torch.float64)).inverse()

    def least(loss):
        def total(parameters):
            matrix, shift = parameters[: dim * dim].view(dim, dim), parameters[dim * dim :]
            return loss(lambda t: shift - ops.linear(t, matrix), x, graph, seed=4).mean()

        start = torch.zeros(dim * dim + dim, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(total(start), start, create_graph=True)
        rows = [torch.autograd.grad(part, start, retain_graph=True)[0] for part in slope]
        best = start - torch.linalg.solve(torch.stack(rows), slope)
        return best[: dim * dim].view(dim, dim).detach().t(), best[dim * dim :].detach()

    # Of a sample, the implicit loss has the sample's own moments for an answer.
    centred = x - x.mean(0)
    exact = (centred.t() @ centred / count).inverse()
    matrix, shift = least(implicit_score_matching)
    torch.testing.assert_close(matrix, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shift, exact @ x.mean(0), rtol=1e-9, atol=1e-9)
    for name, loss in LOSSES.items():
        matrix, shift = least(loss)
        wanted = blurred if name == "denoising" else precision
        # Some four standard errors of 40,000 points; the two answers are ten times as far apart.
        assert float((matrix - wanted).abs().max()) < 0.06, name
        assert float((shift - wanted @ mean).abs().max()) < 0.06, name
    assert float((precision - blurred).abs().max()) > 0.5


def test_gradients(make_graph, loss):
    graph = make_graph(4, sizes=[2, 0, 3], edges_per_node=1.5)
    leaves = [t.requires_grad_() for t in (randn(5, 2, seed=1), randn(2, 2, seed=2), randn(3, 2, seed=3))]

    def run(x, weight, bias):
        return loss(field(graph, weight, bias), x, graph, seed=3)

    if loss is LOSSES["implicit, estimated"]:  # only of a graph whose trace is exact is its gradient the value's
        graph = make_graph(4, sizes=[2, 0, 2], edges_per_node=1.5)
        leaves[0] = randn(4, 2, seed=1).requires_grad_()
    assert gradcheck(run, leaves)


def test_batch_mates_do_not_change_a_bit(make_graph, loss):
    graph = make_graph(21, sizes=[5, 0, 9, 1, 4])
    x, parts = randn(graph.num_nodes, 2, seed=1).float(), (randn(2, 2, seed=2).float(), randn(3, 2, seed=3).float())
    ids = torch.tensor([7, 1, 2**33, 4, 9])
    together = loss(field(graph, *parts), x, graph, seed=2, graph_ids=ids)
    assert together.shape == (5,)
    for g in range(graph.num_graphs):
        nodes = slice(int(graph.ptr[g]), int(graph.ptr[g + 1]))
        edges = slice(int(graph.rowptr[nodes.start]), int(graph.rowptr[nodes.stop]))
        one = GraphBatch.from_edge_index(
            graph.edge_index[:, edges] - nodes.start, nodes.stop - nodes.start, edge_attr=graph.edge_attr[edges]
        )
        alone = loss(field(one, *parts), x[nodes], one, seed=2, graph_ids=ids[g : g + 1])
        assert torch.equal(alone[0], together[g])


def test_seeds_differ(make_graph):
    graph = make_graph(1, sizes=[4, 3])
    x, score = randn(7, 2, seed=1), field(graph, randn(2, 2, seed=2), randn(3, 2, seed=3))
    for loss in (LOSSES["sliced"], LOSSES["denoising"]):
        assert torch.equal(loss(score, x, graph, seed=1), loss(score, x, graph, seed=1))
        assert not torch.equal(loss(score, x, graph, seed=1), loss(score, x, graph, seed=2))


def test_what_does_not_fit_is_refused(make_graph):
    graph, x = make_graph(1, sizes=[4, 3]), torch.zeros(7, 2)
    for arguments in (dict(distribution="uniform"), dict(probes=0)):
        with pytest.raises(ValueError, match="sliced_score_matching"):
            sliced_score_matching(lambda t: t, x, graph, **arguments)
    for sigma in (torch.ones(3), torch.ones(2, 1)):
        with pytest.raises(ValueError, match="sigma"):
            denoising_score_matching(lambda t: t, x, graph, sigma)
