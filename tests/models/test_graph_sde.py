import math
from itertools import product

import pytest
import torch
from draws import alone
from small_molecules import FOUR, TWO, alternating, chains, single_atoms

from graphgen import GraphBatch, GraphgenError, ops
from graphgen.models import GraphSDE, load
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import VE, VP, SubVP
from graphgen.solvers import odeint

SDES = ["vp", "subvp", "ve"]
SAMPLERS = ["euler", "reverse-diffusion", "ancestral", "ode"]


def untrained(vocabulary, seed=0, loud=1.0, **settings):
    torch.manual_seed(seed)
    model = GraphSDE(vocabulary, **{"hidden": 16, "layers": 2, "context_layers": 1, **settings})
    for parameter in model.parameters():
        parameter.data *= loud
    return model


def knowing(share, **settings):
    """The exact model of atoms that are C so often, each for itself."""
    model = untrained(TWO, **settings)
    model.field.out.weight.data.zero_()
    model.field.out.bias.data = torch.tensor([share, 1 - share]).log()
    return model


def coupled(count, seed):
    """Two bonded atoms, nine times in ten of one type."""
    batch = chains([2] * count, TWO)
    first, second = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    first = (first < 0.5).long()
    return batch._replace(atoms=torch.stack([first, (first + (second < 0.1)) % 2], 1).flatten())


def noised(model, batch, t, seed=3):
    """a, b and a state at times t [B]."""
    a, b = model.levels(t)
    noise = model.noise(batch.graph, batch.ids, seed, Stream.PATH)
    of = batch.graph.batch
    return a, b, a[of, None] * model.points(batch.atoms) + b[of, None] * noise


# ---- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(0.5, 160.0)])
def test_marginals_of_the_sdes_are_those_of_their_paths(sde):
    count, steps = 10_000, 200
    ptr = torch.tensor([0, count])
    x = torch.full((count, 1), 4.0) + sde.std(0.0) * ops.normal(ptr, 1, 0)
    for k in range(steps):
        # The middle of the step, so that the path's own error is small.
        t = (k + 0.5) / steps
        x = ops.euler_maruyama_step(x, sde.drift(t) * x, 1 / steps, sde.diffusion(t), ptr=ptr, seed=1, step=k)
        if k + 1 in (steps // 3, steps):
            at, std = (k + 1) / steps, sde.std((k + 1) / steps)
            assert abs(float(x.mean()) - 4 * sde.mean(at)) < 4 * std / count**0.5 + 0.01
            assert float(x.std()) == pytest.approx(std, rel=0.04)


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_way_goes_from_noise_to_beyond_doubt(sde, smoothing):
    model = untrained(TWO, sde=sde, label_smoothing=smoothing)
    batch = MoleculeBatch(single_atoms(2), torch.tensor([0, 1]), torch.arange(2))
    a, b = model.levels(torch.tensor([model.t_min, 1.0]))
    apart = float((model.points(batch.atoms)[0] - model.points(batch.atoms)[1]).norm()) / math.sqrt(2)
    assert apart * a / b == pytest.approx(torch.tensor([8.0, 0.025]), abs=0.006)
    assert float(b[1]) == pytest.approx(model.sde.std(1.0), rel=1e-5)


@pytest.mark.parametrize("sde", SDES)
def test_the_flow_by_signal_is_the_probability_flow_in_time(sde):
    model, batch = untrained(FOUR, sde=sde, loud=1.5), chains([4, 5])
    graph, process = batch.graph, model.sde
    score, flow = model.bind_score(graph), model.bind_flow(graph)
    y = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))

    def in_time(t, x):
        half = (process.diffusion(t) ** 2 / 2).float()[graph.batch, None]
        return process.drift(t).float()[graph.batch, None] * x - half * score(*model.levels(t), x)

    with torch.no_grad():
        end = odeint(in_time, y * process.std(1.0), graph, 1.0, model.t_min, rtol=1e-6, atol=1e-6)
        same = odeint(flow, y, graph, *model.ratios, rtol=1e-6, atol=1e-6)
    assert torch.allclose(end / process.std(model.t_min), same, atol=2e-3)
    assert float((same - y).abs().max()) > 4


# ---- learning -------------------------------------------------------------------------------------------------------


def test_all_objectives_have_one_gradient():
    """Their means differ by constants, so their gradients are alike everywhere, and so are their minimisers."""
    batch = coupled(400, 0)
    slopes = {}
    for objective in ("denoising", "implicit", "sliced"):
        model = untrained(TWO, objective=objective, hidden=4, layers=1, loud=1.5)
        model.t_trained = untrained(TWO, objective="implicit").t_trained
        model.field.out.bias.data = torch.tensor([0.7, -0.7])  # far from the optimum
        watched = [model.field.out.bias, model.field.state.weight]
        draws = []
        for step in range(12):
            found = torch.autograd.grad(model.loss(batch, 0, step), watched)
            draws.append(torch.cat([part.flatten() for part in found]))
        slopes[objective] = torch.stack(draws)
    expected = slopes.pop("denoising")
    for name, found in slopes.items():
        error = (found - expected).std(0) / 12**0.5
        assert (found.mean(0) - expected.mean(0)).abs().max() < 0.3 * expected.mean(0).abs().max(), name
        assert ((found - expected).mean(0).abs() < 4 * error + 1e-4).all(), name


def test_hyvarinens_loss_is_the_same_by_reach():
    model, batch = untrained(FOUR, objective="implicit"), chains([4, 5, 1])
    by_reach = model.loss(batch, 0)
    model.field.reach = None
    assert float(by_reach.detach()) == pytest.approx(float(model.loss(batch, 0).detach()), rel=1e-5)


def learn(model, batch_of, steps):
    """Along a falling learning rate."""
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        model.loss(batch_of(step), 0, step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def test_the_score_of_coupled_atoms_is_recovered():
    """Against the score of the four pairs of labels, each with its probability."""
    model, batch = untrained(TWO), coupled(300, 1000)
    learn(model, lambda step: coupled(64, step), 150)
    pairs = torch.stack([model.points(torch.tensor(pair)).flatten() for pair in product((0, 1), repeat=2)])
    missed, at_stake = 0.0, 0.0
    for t in (0.3, 0.4, 0.5, 0.6):
        a, b, x = noised(model, batch, torch.full((300,), t))
        away = (a[0] * pairs - x.view(300, 1, 4)) / b[0]

        def score(shares, away=away):
            weight = torch.softmax(torch.tensor(shares).log() - 0.5 * away.square().sum(2), 1)
            return (weight.unsqueeze(2) * away).sum(1)

        true, blind = score([0.45, 0.05, 0.05, 0.45]), score([0.25] * 4)  # blind to the neighbour
        with torch.no_grad():
            found = (b[0] * model.bind_score(batch.graph)(a, b, x)).view(300, 4)
        missed += float((found - true).square().mean())
        at_stake += float((blind - true).square().mean())
    assert missed < 0.2 * at_stake


@pytest.mark.parametrize("objective", ["denoising", "implicit", "sliced"])
def test_all_objectives_learn(objective):
    model, batch = untrained(TWO, objective=objective), alternating()

    def nats():
        with torch.no_grad():
            found = model.log_prob(batch, 7, method="rk4", steps=8)
        return -float(found.value.sum() / found.atoms.sum())

    before = nats()
    learn(model, lambda step: batch, 80)
    assert before > 0.6
    assert nats() < (0.25 if objective == "denoising" else 0.45)


def test_loss_is_a_function_of_seed_and_step():
    model, batch = untrained(FOUR, objective="sliced"), chains([4, 5])
    assert torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 2))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 1, 3))
    assert not torch.equal(model.loss(batch, 1, 2), model.loss(batch, 2, 2))


# ---- likelihood -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy():
    """The density of a one-atom, two-type model on a grid, and the grid."""
    model = untrained(TWO, loud=1.5)
    blur = model.sde.std(model.t_min)
    axis = torch.linspace(-5, 13, 55) * blur
    grid = torch.cartesian_prod(axis, axis)
    batch = MoleculeBatch(single_atoms(len(grid)), torch.zeros(len(grid), dtype=torch.int64), torch.arange(len(grid)))
    with torch.no_grad():
        density = model.log_density(grid, batch, trace="exact", method="rk4", steps=10).double().exp()
    return model, grid, density * float(axis[1] - axis[0]) ** 2


def test_density_integrates_to_one(toy):
    assert abs(float(toy[2].sum()) - 1) < 3e-3


def test_bound_and_samples_have_the_probabilities_of_the_density(toy):
    model, grid, mass = toy
    inside = torch.where(grid[:, 0] == grid[:, 1], 0.5, (grid[:, 0] > grid[:, 1]).double())  # a diagonal is of both
    shares = [float((mass * inside).sum()), float((mass * (1 - inside)).sum())]
    assert abs(shares[0] - shares[1]) > 0.02
    for label, exact in enumerate(shares):
        many = MoleculeBatch(single_atoms(1000), torch.full((1000,), label), torch.arange(1000))
        with torch.no_grad():
            bound = model.log_prob(many, trace="exact", method="rk4", steps=10).value
        assert float(bound.mean()) < math.log(exact) + 4 * float(bound.std()) / 1000**0.5 + 0.01
        assert float(bound.mean()) > math.log(exact) - 0.5
    atoms = model.sample(single_atoms(3000), torch.arange(3000), seed=5, steps=20, sampler="ode")
    share = float((atoms == 0).double().mean())
    assert abs(share - shares[0]) < 4 * (shares[0] * shares[1] / 3000) ** 0.5 + 2e-3


@pytest.mark.parametrize("sde", SDES)
def test_the_bound_of_the_exact_model_is_the_log_probability(sde):
    model = knowing(0.8, sde=sde)
    batch = chains([3] * 200, TWO)._replace(atoms=torch.zeros(600, dtype=torch.int64))
    with torch.no_grad():
        found = model.log_prob(batch, trace="exact", method="rk4", steps=12, samples=2)
    assert found.evaluations == 2 * 12 * 4
    assert torch.equal(found.atoms, torch.full((200,), 3))
    # The prior, which knows nothing of the labels' shares, takes off half a per cent.
    assert float(found.value.mean()) / 3 == pytest.approx(math.log(0.8), abs=0.008)
    assert float(found.stderr.mean()) < 0.05


def test_hutchinson_density_agrees_with_the_exact_one():
    model, batch = untrained(FOUR, loud=1.5), chains([6, 3])
    x = noised(model, batch, torch.full((2,), model.t_min))[2]
    with torch.no_grad():
        exact = model.log_density(x, batch, trace="exact", method="rk4", steps=4)
        draws = torch.stack([model.log_density(x, batch, seed, method="rk4", steps=4) for seed in range(20)])
    error = draws.std(0) / 20**0.5
    assert (error > 0).all() and ((draws.mean(0) - exact).abs() < 4 * error).all()


def test_renaming_atoms_changes_the_density_by_nothing_and_moves_the_score_along():
    model, batch = untrained(FOUR), chains([7])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    edges = order.argsort()[batch.graph.edge_index]
    renamed = GraphBatch.from_edge_index(edges, 7, edge_attr=batch.graph.edge_attr)
    a, b, x = noised(model, batch, torch.tensor([0.4]))
    with torch.no_grad():
        score = model.bind_score(batch.graph)(a, b, x)
        assert torch.allclose(model.bind_score(renamed)(a, b, x[order]), score[order], atol=1e-4)
        one = model.log_density(x, batch, trace="exact", method="rk4", steps=5)
        other = model.log_density(x[order], batch._replace(graph=renamed), trace="exact", method="rk4", steps=5)
    assert torch.allclose(one, other, atol=1e-4)


# ---- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde, sampler", [pair for pair in product(SDES, SAMPLERS) if pair != ("subvp", "ancestral")])
def test_samples_of_the_exact_model_have_its_shares(sde, sampler):
    graph, ids = single_atoms(1000), torch.arange(1000)
    atoms = knowing(0.8, sde=sde).sample(graph, ids, 1, steps=10 if sampler == "ode" else 100, sampler=sampler)
    assert float((atoms == 0).double().mean()) == pytest.approx(0.8, abs=4 * (0.16 / 1000) ** 0.5)


def test_corrections_leave_the_shares():
    batch = chains([8] * 100, TWO)
    atoms = knowing(0.8).sample(batch.graph, batch.ids, 1, steps=50, corrections=2, snr=0.05)
    assert float((atoms == 0).double().mean()) == pytest.approx(0.8, abs=4 * (0.16 / 800) ** 0.5)


@pytest.mark.parametrize(
    "sde, sampling",
    [*[("vp", {"sampler": s}) for s in SAMPLERS], ("vp", {"corrections": 1, "temperature": 2.0}), ("ve", {})],
)
def test_a_molecule_does_not_depend_on_its_batch(sde, sampling):
    model, batch = untrained(FOUR, loud=1.5, sde=sde), chains([4, 7, 1, 5, 3, 8, 2])
    together = model.sample(batch.graph, batch.ids, 3, steps=20, **sampling)
    for g in range(7):
        one, nodes, _ = alone(batch.graph, g)
        assert torch.equal(model.sample(one, batch.ids[g : g + 1], 3, steps=20, **sampling), together[nodes])
    logits = model._walk(batch.graph, batch.ids, 3, 20)
    one, nodes, _ = alone(batch.graph, 6)
    assert torch.equal(model._walk(one, batch.ids[6:], 3, 20), logits[nodes])
    assert not torch.equal(model.sample(batch.graph, batch.ids, 4, steps=20, **sampling), together)


def test_a_trajectory_ends_in_the_sample():
    model, batch = untrained(FOUR, loud=1.5), chains([4, 7, 5])
    frames = model.trajectory(batch.graph, batch.ids, 3, (0.0, 0.5, 0.5, 1.0), steps=20)
    assert [frame.time for frame in frames] == [0.0, 0.5, 0.5, 1.0]
    assert torch.equal(frames[-1].atoms.argmax(1), model.sample(batch.graph, batch.ids, 3, steps=20))
    assert torch.equal(frames[1].atoms, frames[2].atoms)
    assert torch.allclose(frames[0].atoms, model.marginals(batch.graph, batch.ids, 3, draws=1), atol=1e-5)
    sure = [float(frame.atoms.max(1).values.mean()) for frame in frames]
    assert sure[0] < sure[1] < sure[3] and sure[3] > 0.99


def test_marginals_of_the_exact_model_are_its_shares():
    found = knowing(0.8, sde="ve").marginals(single_atoms(50), torch.arange(50), 0)
    assert torch.allclose(found, torch.tensor([0.8, 0.2]).expand(50, 2), atol=0.02)


# ---- the rest -------------------------------------------------------------------------------------------------------


def test_saved_model_is_the_same_model(tmp_path):
    model, batch = untrained(FOUR, scale=5.0, sde="ve", objective="implicit"), chains([4, 5])
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert isinstance(again, GraphSDE) and again.settings == model.settings and again.sde == model.sde
    assert torch.equal(again.loss(batch, 0), model.loss(batch, 0))


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"objective": "guess"}, "objective 'guess'"),
        ({"sde": "vpp"}, "sde 'vpp'"),
        ({"scale": 16.0}, "choose at most 15"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_settings_are_checked(settings, complaint):
    with pytest.raises(GraphgenError, match=complaint):
        untrained(FOUR, **settings)


@pytest.mark.parametrize(
    "sde, sampling, complaint",
    [
        ("vp", {"sampler": "guess"}, "sampler 'guess'"),
        ("vp", {"steps": 0}, "steps"),
        ("vp", {"steps": 17}, "at least 18"),
        ("vp", {"corrections": -1}, "corrections"),
        ("vp", {"sampler": "ode", "corrections": 1}, "corrections"),
        ("subvp", {"sampler": "ancestral"}, "no ancestral"),
    ],
)
def test_samplers_are_checked(sde, sampling, complaint):
    with pytest.raises(GraphgenError, match=complaint) as caught:
        untrained(FOUR, sde=sde).sample(single_atoms(1), torch.tensor([0]), 0, **sampling)
    assert "\n" not in str(caught.value)
