import pytest
import torch
from small_molecules import FOUR, TWO, single_atoms

from graphgen import GraphBatch, GraphgenError, ops
from graphgen.losses import denoising_score_matching
from graphgen.models import GraphNCSN, load
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops.noise import Stream
from graphgen.solvers import annealed_langevin

LAW = torch.tensor([0.5, 0.25, 0.15, 0.1])


@pytest.fixture(autouse=True)
def one_thread(threads):
    """The work is so little that a second thread would only be waited for."""
    with threads(1):
        yield


def untrained(vocabulary=FOUR, **settings):
    torch.manual_seed(0)
    return GraphNCSN(vocabulary, **{"hidden": 16, "layers": 2, "context_layers": 1, **settings})


def exact(**settings):
    """For lone atoms whose labels have the probabilities LAW: the network's share of the posterior is a constant."""
    model = untrained(hidden=2, layers=1, **settings)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.field.out.bias.data = LAW.log()
    return model


def chains(sizes, atoms=None, first_id=40):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    left = torch.cat([torch.arange(first, first + size - 1) for first, size in zip(ptr, sizes, strict=False)])
    kinds = torch.zeros(len(left), dtype=torch.int64)
    edges = torch.stack([torch.cat([left, left + 1]), torch.cat([left + 1, left])])
    graph = GraphBatch.from_edge_index(edges, int(ptr[-1]), ptr=ptr, edge_attr=torch.cat([kinds, kinds]))
    atoms = torch.arange(int(ptr[-1])) * 7 % 4 if atoms is None else atoms
    return MoleculeBatch(graph, atoms, torch.arange(len(sizes)) + first_id)


def in_proportion(found, probabilities):
    """Every share within four standard errors."""
    shares = torch.bincount(found, minlength=len(probabilities)) / len(found)
    error = (probabilities * (1 - probabilities) / len(found)).sqrt()
    return bool(((shares - probabilities).abs() < 4 * error).all())


def test_levels_are_geometric():
    sigmas = torch.tensor(untrained(levels=5, sigma_max=16.0, sigma_min=1.0).sigmas)
    assert torch.allclose(sigmas, torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0]))
    assert (torch.tensor(untrained().sigmas) / 4).allclose(torch.logspace(0, -2, 10))  # the published ones, four times


def test_score_of_a_lone_atom_is_that_of_the_mixture():
    model = exact(label_smoothing=0.2).double()
    model.field.out.bias.data = LAW.double().log()
    sigma = torch.tensor(model.sigmas[:6], dtype=torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    centres = model.points(torch.arange(4))
    square = (x.unsqueeze(1) - centres).square().sum(2) / sigma.unsqueeze(1) ** 2
    density = torch.logsumexp(LAW.double().log() - 0.5 * square, 1)
    (gradient,) = torch.autograd.grad(density.sum(), x)
    with torch.no_grad():
        score = model.bind_score(single_atoms(6))(torch.ones_like(sigma), sigma, x)
    assert torch.allclose(score, gradient, rtol=1e-6, atol=1e-9)


def test_all_modes_are_found_in_proportion():
    model, count = exact(levels=6, sigma_min=0.2), 1000
    # Half the published step: its own error is below a standard error.
    found = model.sample(single_atoms(count), torch.arange(count), seed=3, steps=150, epsilon=0.1 * 0.2**2)
    assert in_proportion(found, LAW)


def test_denoising_ends_at_the_points_of_the_labels():
    model, graph, ids = exact(), single_atoms(50), torch.arange(50)
    score = model._score(graph)
    with torch.no_grad():
        ends = [model._walk(score, graph, ids, 1, 10, None, denoise) for denoise in (False, True)]
    nearest = model.points(ends[0].argmax(1))
    assert torch.equal(ends[0].argmax(1), ends[1].argmax(1))
    assert 0.01 < float((ends[0] - nearest).std()) < 0.08
    assert torch.allclose(ends[1], nearest, atol=1e-5)


def test_loss_is_denoising_score_matching_weighted_by_the_variance():
    model, batch = untrained(), chains([4, 5])
    ones = torch.ones(2)
    level = (model.times(batch, 6, 0) * 10).long()
    sigma = torch.tensor(model.sigmas)[level]
    score = model.bind_score(batch.graph)
    each = denoising_score_matching(
        lambda x: score(ones, sigma, x), model.points(batch.atoms), batch.graph, sigma, 6, batch.ids
    )
    assert torch.allclose(model.loss(batch, 6), (sigma**2 * each).sum() / 9, rtol=1e-4)


def test_both_modes_of_a_molecule_are_found_in_proportion():
    """With the exact score of chains that are N C N or, in one of four, C N C."""
    model = untrained(TWO)
    modes = model.points(torch.tensor([1, 0, 1, 0, 1, 0])).view(2, 3, 2)

    def bind_mean(graph):
        def mean(a, b, x):
            logits = (a / b**2).unsqueeze(1) * torch.einsum("gnc,knc->gk", x.view(-1, 3, 2), modes)
            weights = torch.softmax(logits + torch.tensor([3.0, 1.0]).log(), 1)
            return torch.einsum("gk,knc->gnc", weights, modes).reshape(x.shape)

        return mean

    model.bind_mean = bind_mean
    batch = chains([3] * 600)
    found = model.sample(batch.graph, batch.ids, seed=2, steps=40).view(600, 3)
    assert bool((found[:, 1:] != found[:, :-1]).all())
    assert in_proportion(found[:, 0], torch.tensor([0.25, 0.75]))


def trained(model, batch, steps):
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        model.loss(batch, 0, step).backward()
        optimizer.step()
    return model


def test_trained_it_finds_all_modes_in_proportion():
    model = untrained(levels=6, sigma_min=0.2)
    atoms = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3]).repeat(16)
    trained(model, MoleculeBatch(single_atoms(320), atoms, torch.arange(320)), 250)
    found = model.sample(single_atoms(600), torch.arange(600), seed=2, steps=50)
    assert in_proportion(found, LAW)
    assert torch.allclose(model.marginals(single_atoms(600), torch.arange(600), 0).mean(0), LAW, atol=0.05)


def test_it_learns_what_neighbours_say_of_each_other():
    """Every second atom of a chain is an N: learnable from the neighbours' state, not from the bonds alone."""
    model = untrained(TWO, levels=6, sigma_min=0.2)
    first = torch.arange(32) % 2
    batch = chains([6] * 32, (torch.arange(6).repeat(32) + first.repeat_interleave(6)) % 2)

    def alternating():
        more = chains([6] * 50)
        found = model.sample(more.graph, more.ids, seed=2, steps=20).view(50, 6)
        return float((found[:, 1:] != found[:, :-1]).double().mean())

    assert alternating() < 0.65
    trained(model, batch, 150)
    assert alternating() > 0.9


def test_the_bounds_are_close_to_the_law_and_add_up_to_no_more_than_one():
    """With the exact score only the start is off: at sigma_max = 4 a label still shows, a quarter of a deviation."""
    model, bounds, error = exact(), [], 0.0
    for label in range(len(LAW)):
        batch = MoleculeBatch(single_atoms(400), torch.full((400,), label), torch.arange(400))
        with torch.no_grad():
            value = model.log_prob(batch, trace="exact", method="rk4", steps=20).value
        bounds.append(value.mean())
        error += float(value.std()) / 20 * float(LAW[label])
    found = torch.stack(bounds).exp()
    assert torch.allclose(found, LAW, atol=0.03)
    assert 0.95 < float(found.sum()) < 1 + 4 * error


def test_marginals_are_the_law():
    marginals = exact().marginals(single_atoms(500), torch.arange(500), 0)
    assert torch.allclose(marginals.mean(0), LAW, atol=0.01)


def test_samples_do_not_depend_on_batch_and_threads(threads):
    model, batch = untrained(), chains([4, 7, 1, 5])
    together = model.sample(batch.graph, batch.ids, 3, steps=5, temperature=1.0)
    assert len(together.unique()) > 1
    with threads(2):
        assert torch.equal(model.sample(batch.graph, batch.ids, 3, steps=5, temperature=1.0), together)
    frames = model.trajectory(batch.graph, batch.ids, 3, (0.5,), steps=5)
    for g, size in enumerate([4, 7, 1, 5]):
        rows = slice(int(batch.graph.ptr[g]), int(batch.graph.ptr[g + 1]))
        alone = chains([size])
        ids = batch.ids[g : g + 1]
        assert torch.equal(model.sample(alone.graph, ids, 3, steps=5, temperature=1.0), together[rows])
        assert torch.equal(model.trajectory(alone.graph, ids, 3, (0.5,), steps=5)[0].atoms, frames[0].atoms[rows])


def test_trajectory_is_that_of_the_sample():
    model, batch = untrained(), chains([4, 5])
    frames = model.trajectory(batch.graph, batch.ids, 1, (0.0, 0.33, 1.0), steps=7)
    assert [frame.time for frame in frames] == [0.0, 0.33, 1.0]
    start = model._start(batch.graph, batch.ids, 1)
    with torch.no_grad():
        first = ops.softmax(model.bind_logits(batch.graph)(torch.ones(2), torch.full((2,), 4.0), start))
    assert torch.equal(frames[0].atoms, first)
    assert torch.equal(frames[2].atoms.argmax(1), model.sample(batch.graph, batch.ids, 1, steps=7))


def test_renaming_atoms_renames_the_walk():
    model, batch = untrained().double(), chains([7])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    renamed = GraphBatch.from_edge_index(
        order.argsort()[batch.graph.edge_index], 7, edge_attr=batch.graph.edge_attr.clone()
    )
    x = model.noise(batch.graph, batch.ids, 0, Stream.PRIOR)
    ends = []
    for graph, start in ((batch.graph, x), (renamed, x[order])):
        with torch.no_grad():
            ends.append(annealed_langevin(model._score(graph), start, graph, model.sigmas, 3e-4, 5, temperature=0.0))
    assert torch.allclose(ends[0][order], ends[1], atol=1e-9)
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)


def test_loss_is_a_function_of_seed_and_step():
    model, batch = untrained(), chains([4, 5])
    assert torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 2))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 3))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 2, 2))


def test_saved_model_is_the_same_model(tmp_path):
    model, batch = untrained(levels=4, sigma_max=3.0), chains([4, 5])
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, GraphNCSN) and again.settings == model.settings
    assert torch.equal(again.loss(batch, 0), model.loss(batch, 0))


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"levels": 1}, "levels"),
        ({"sigma_min": 5.0}, "sigma_min"),
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_settings_are_checked(settings, complaint):
    with pytest.raises(GraphgenError, match=complaint) as caught:
        untrained(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"steps": 0}, {"epsilon": 0.0}])
def test_sampling_options_are_checked(options):
    batch = chains([3])
    with pytest.raises(GraphgenError, match="steps .* epsilon"):
        untrained().sample(batch.graph, batch.ids, 0, **options)
