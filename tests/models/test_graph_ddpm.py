import math

import pytest
import torch
from small_molecules import FOUR, TWO, single_atoms

from graphgen import GraphBatch, GraphgenError, ops
from graphgen.models import GraphDDPM, load
from graphgen.models.graph_ddpm import cosine_betas, linear_betas
from graphgen.molecules.encoded import MoleculeBatch
from graphgen.ops.noise import Stream
from graphgen.solvers import denoising_chain

LAW = torch.tensor([0.5, 0.25, 0.15, 0.1])


@pytest.fixture(autouse=True)
def one_thread(threads):
    """The work is so little that a second thread would only be waited for."""
    with threads(1):
        yield


def untrained(vocabulary=FOUR, **settings):
    torch.manual_seed(0)
    return GraphDDPM(vocabulary, **{"hidden": 16, "layers": 2, "context_layers": 1, "chain": 60, **settings})


def exact(**settings):
    """For lone atoms whose labels have the probabilities LAW: the network's share of the posterior is a constant."""
    model = untrained(hidden=2, layers=1, **settings)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.field.out.bias.data = LAW.log()
    return model


def lone(label, count):
    return MoleculeBatch(single_atoms(count), torch.full((count,), label), torch.arange(count))


def chains(sizes, atoms=None, first_id=40):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    left = torch.cat([torch.arange(first, first + size - 1) for first, size in zip(ptr, sizes, strict=False)])
    kinds = torch.zeros(len(left), dtype=torch.int64)
    edges = torch.stack([torch.cat([left, left + 1]), torch.cat([left + 1, left])])
    graph = GraphBatch.from_edge_index(edges, int(ptr[-1]), ptr=ptr, edge_attr=torch.cat([kinds, kinds]))
    atoms = torch.arange(int(ptr[-1])) * 7 % 4 if atoms is None else atoms
    return MoleculeBatch(graph, atoms, torch.arange(len(sizes)) + first_id)


def shares(found):
    return torch.bincount(found, minlength=4) / len(found)


def within(found, probabilities, errors=4.0, slack=0.0):
    error = (probabilities * (1 - probabilities) / len(found)).sqrt()
    return bool(((shares(found) - probabilities).abs() < errors * error + slack).all())


# ---- the chain ------------------------------------------------------------------------------------------------------


def test_schedules_are_the_published_ones():
    linear = torch.tensor(untrained(chain=1000).alpha_bars, dtype=torch.float64)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(linear[1:], (1 - betas).cumprod(0), rtol=1e-12) and linear[0] == 1
    assert sum(linear_betas(100)) == pytest.approx(sum(linear_betas(1000)), rel=1e-9)
    cosine = torch.tensor(untrained(chain=1000, schedule="cosine").alpha_bars, dtype=torch.float64)
    t = torch.arange(1001, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(cosine[:-1], (f / f[0])[:-1], rtol=1e-9)
    assert cosine_betas(1000)[-1] == 0.999 and max(cosine_betas(1000)[:-1]) < 0.999


@pytest.mark.parametrize("now, after", [(40, 39), (40, 12), (1, 0)])
def test_step_is_the_posterior_of_bayes(now, after):
    """q(x_s | x_t, x0) is the product of two normals of x_s, q(x_t | x_s) and q(x_s | x0)."""
    abar = untrained().alpha_bars
    generator = torch.Generator().manual_seed(0)
    x, x0 = (torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    graph, ids = single_atoms(3), torch.arange(3) + 5
    moved = denoising_chain(
        lambda k, state: x0, x, graph, [abar[now], abar[after]], predicts="data", seed=7, graph_ids=ids
    )
    if after == 0:
        assert torch.allclose(moved, x0, atol=1e-12)
        return
    link = abar[now] / abar[after]
    precision = link / (1 - link) + 1 / (1 - abar[after])
    mean = (math.sqrt(link) / (1 - link) * x + math.sqrt(abar[after]) / (1 - abar[after]) * x0) / precision
    xi = ops.normal(graph.ptr, 4, 7, Stream.STEP, 0, ids, torch.float64)
    assert torch.allclose(moved, mean + xi / math.sqrt(precision), atol=1e-10)


def test_ddim_has_eta_squared_the_variance_of_the_posterior_and_keeps_the_marginal():
    abar = untrained().alpha_bars
    now, after = abar[40], abar[12]
    x, x0 = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    graph = single_atoms(2)
    xi = ops.normal(graph.ptr, 4, 0, Stream.STEP, 0, None, torch.float64)
    posterior = 1 / ((now / after) / (1 - now / after) + 1 / (1 - after))
    eps = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
    for eta in (0.0, 0.5, 1.0):
        moved = denoising_chain(lambda k, state: x0, x, graph, [now, after], predicts="data", eta=eta)
        by_noise = denoising_chain(lambda k, state: eps, x, graph, [now, after], predicts="noise", eta=eta)
        variance = eta**2 * posterior
        mean = math.sqrt(after) * x0 + math.sqrt(1 - after - variance) * eps
        assert torch.allclose(moved, mean + math.sqrt(variance) * xi, atol=1e-10)
        assert torch.allclose(moved, by_noise, atol=1e-10)


def test_nodes_and_pairs_walk_together():
    graph, ids = chains([2, 3]).graph, torch.tensor([4, 8])
    nodes, pairs = torch.randn(5, 4), torch.zeros(13, 2)
    done = []
    both = denoising_chain(
        lambda k, state: (state[0] / 2, state[1]), (nodes, pairs), graph, [0.3, 0.6, 0.9],
        predicts="data", graph_ids=ids, on_step=done.append,
    )  # fmt: skip
    alone = denoising_chain(lambda k, x: x / 2, nodes, graph, [0.3, 0.6, 0.9], predicts="data", graph_ids=ids)
    assert torch.equal(both[0], alone) and done == [0.5, 1.0]
    square = both[1][4:].view(3, 3, 2)
    assert torch.equal(square, square.transpose(0, 1)) and float(square.std()) > 0.1


def test_chain_refuses_what_is_none():
    x, graph = torch.zeros(1, 4), single_atoms(1)
    with pytest.raises(ValueError, match="rise"):
        denoising_chain(lambda k, state: state, x, graph, [0.5, 0.4])
    with pytest.raises(ValueError, match="eta"):
        denoising_chain(lambda k, state: state, x, graph, [0.5, 1.0], eta=2.0)
    with pytest.raises(GraphgenError, match=r"step 1, alpha_bar 0.7.*graphs 9"):
        denoising_chain(
            lambda k, state: state / (1 - k), x + 1, graph, [0.5, 0.7, 1.0], graph_ids=torch.tensor([9]), eta=0.0
        )


# ---- a law that is known --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_exact_posterior_samples_the_law(schedule):
    model, graph, ids = exact(chain=300, schedule=schedule), single_atoms(2000), torch.arange(2000)
    assert within(model.sample(graph, ids, 3), LAW)
    assert within(model.sample(graph, ids, 3, steps=60, sampler="ddim"), LAW)
    assert within(model.sample(graph, ids, 3, steps=60, temperature=1.0), LAW, slack=0.01)


def test_bound_is_below_the_probability_of_the_label_and_close_to_it():
    model, count = exact(chain=200, schedule="cosine"), 2500
    sampled = shares(model.sample(single_atoms(4000), torch.arange(4000), 5))
    for label in (0, 3):
        with torch.no_grad():
            found = model.log_prob(lone(label, count), samples=2)
        error = float(found.value.std()) / count**0.5
        chance = 2 * float(((1 - sampled[label]) / sampled[label] / 4000) ** 0.5)
        assert float(found.value.mean()) < math.log(float(sampled[label])) + 4 * error + chance
        assert float(found.value.mean()) > math.log(float(LAW[label])) - 0.1 - 4 * error
        assert found.evaluations == 2 and torch.equal(found.atoms, torch.ones(count, dtype=torch.int64))


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_bound_is_the_sum_over_the_chain(prediction):
    """Each term of equation 5 as a KL of two normals, by steps of the chain, averaged over much noise."""
    model, count = untrained(chain=24, prediction=prediction, label_smoothing=0.1), 800
    batch = lone(2, count)
    abar, c = model.alpha_bars, 4
    x0 = model.points(batch.atoms)
    x = {0: x0}
    terms = torch.zeros(24, count, dtype=torch.float64)
    with torch.no_grad():
        for t in range(1, 25):
            noise = model.noise(batch.graph, batch.ids, 1, Stream.PATH, t)
            x[t] = math.sqrt(abar[t]) * x0 + math.sqrt(1 - abar[t]) * noise
            a, b = model.signal(torch.full((count,), t))
            if t == 1:
                terms[0] = -model.bind_probabilities(batch.graph)(a, b, x[1])[:, 2].double().log()
                continue
            guess = model.bind_mean(batch.graph)(a, b, x[t])
            now, after = abar[t], abar[t - 1]
            gap = math.sqrt(after) * (1 - now / after) / (1 - now) * (x0 - guess)
            terms[t - 1] = gap.double().square().sum(1) / (2 * (1 - after) / (1 - now) * (1 - now / after))
        end = torch.distributions.Normal(math.sqrt(abar[24]) * x0[0].double(), math.sqrt(1 - abar[24]))
        known = torch.distributions.kl_divergence(end, torch.distributions.Normal(torch.zeros(c).double(), 1.0)).sum()
        found = model.log_prob(batch, samples=20)
    exactly, error = -float(terms.sum(0).mean() + known), float(terms.sum(0).std()) / count**0.5
    estimated = float(found.value.mean())
    error = math.hypot(error, float(found.value.std()) / count**0.5)
    assert error < 0.1 * abs(exactly)
    assert abs(estimated - exactly) < 4 * error


def test_stated_error_covers_the_scatter_of_the_draws():
    model, batch = exact(chain=100), lone(1, 300)
    with torch.no_grad():
        found = model.log_prob(batch, samples=16)
        one = model.log_prob(batch)
    assert float(found.value.std()) < 1.3 * float(found.stderr.square().mean().sqrt())
    assert torch.isnan(one.stderr).all() and float(one.value.std()) > 2 * float(found.value.std())


def test_marginals_are_the_law():
    assert torch.allclose(exact(chain=1000).marginals(single_atoms(300), torch.arange(300), 0).mean(0), LAW, atol=0.01)
    with pytest.raises(GraphgenError, match="epsilon"):
        untrained(prediction="epsilon").marginals(single_atoms(1), torch.arange(1), 0)


# ---- what the network is asked for ----------------------------------------------------------------------------------


def test_predictions_of_one_point_agree():
    """A network that answers with the noise, or v, of the point that the x0 form gives."""
    models = {prediction: untrained(prediction=prediction).double() for prediction in ("x0", "epsilon", "v")}
    batch = chains([5, 3])
    t = torch.tensor([20, 45])
    a, b = models["x0"].signal(t)
    rows = batch.graph.batch
    x = torch.randn(8, 4, dtype=torch.float64)
    with torch.no_grad():
        mean = models["x0"].bind_mean(batch.graph)(a, b, x)
        eps = (x - a[rows, None] * mean) / b[rows, None]
        answers = {"epsilon": eps, "v": a[rows, None] * eps - b[rows, None] * mean}
        scores = [models["x0"].bind_score(batch.graph)(a, b, x), -eps / b[rows, None]]
        for prediction, answer in answers.items():
            model = models[prediction]
            model.field.bind = lambda graph, answer=answer: lambda t, x: answer
            assert torch.allclose(model.bind_mean(batch.graph)(a, b, x), mean, atol=1e-5)
            scores.append(model.bind_score(batch.graph)(a, b, x))
            found = ops.softmax(model.bind_logits(batch.graph)(a, b, x))
            assert torch.allclose(found, (mean - model.shift) / model.spread, atol=1e-5)
    for score in scores[1:]:
        assert torch.allclose(score, scores[0], atol=1e-4)


def test_losses_are_least_for_the_right_answer():
    batch = chains([5, 3])
    for prediction in ("epsilon", "v"):
        model = untrained(prediction=prediction)
        t = 1 + (model.times(batch, 3, 4) * 60).long()
        a, b = (number[batch.graph.batch, None] for number in model.signal(t))
        noise = model.noise(batch.graph, batch.ids, 3, Stream.PATH, 4)
        answer = noise if prediction == "epsilon" else a * noise - b * model.points(batch.atoms)
        before = float(model.loss(batch, 3, 4).detach())
        model.field.bind = lambda graph, answer=answer: lambda t, x: answer + 0.5
        assert before > 0.5 and float(model.loss(batch, 3, 4).detach()) == pytest.approx(0.25, rel=1e-4)


def test_cross_entropy_of_the_law_is_its_entropy_where_all_is_noise():
    model = exact(chain=1000)
    model.times = lambda batch, seed, step: torch.full((batch.graph.num_graphs,), 0.999)
    atoms = torch.multinomial(LAW, 4000, True, generator=torch.Generator().manual_seed(0))
    loss = model.loss(lone(0, 4000)._replace(atoms=atoms), 0)
    assert float(loss.detach()) == pytest.approx(float(-(LAW * LAW.log()).sum()), abs=0.03)


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "v"])
def test_each_prediction_learns(prediction):
    """Every second atom of a chain is an N: learnable from the neighbours' state, not from the bonds alone."""
    model = untrained(TWO, prediction=prediction, schedule="cosine")
    first = torch.arange(32) % 2
    batch = chains([6] * 32, (torch.arange(6).repeat(32) + first.repeat_interleave(6)) % 2)

    def nats():
        with torch.no_grad():
            found = model.log_prob(batch, 7, samples=6)
        return -float(found.value.sum() / found.atoms.sum())

    before = nats()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(120):
        optimizer.zero_grad()
        model.loss(batch, 0, step).backward()
        optimizer.step()
    # One fair coin per molecule of six atoms: log(2) / 6 = 0.116 nats per atom; independent atoms pay 0.693.
    assert before > 0.65
    assert nats() < {"x0": 0.4, "epsilon": 0.8, "v": 0.7}[prediction] * before
    found = model.sample(batch.graph, batch.ids, 1, steps=20).view(32, 6)
    assert float((found[:, 1:] != found[:, :-1]).double().mean()) > 0.8


# ---- the model's contracts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_samples_do_not_depend_on_batch_and_threads(prediction, threads):
    model, sizes = untrained(prediction=prediction), [4, 7, 1, 5]
    batch = chains(sizes)
    options = [{"temperature": 5.0}, {"steps": 7, "sampler": "ddim", "eta": 0.5}]
    together = [model.sample(batch.graph, batch.ids, 3, **chosen) for chosen in options]
    assert not torch.equal(*together)
    with threads(2):
        assert torch.equal(model.sample(batch.graph, batch.ids, 3, **options[0]), together[0])
    frames = model.trajectory(batch.graph, batch.ids, 3, (0.5,))
    with torch.no_grad():
        bounds = model.log_prob(batch, 3, samples=3).value
    for g, size in enumerate(sizes):
        rows = slice(int(batch.graph.ptr[g]), int(batch.graph.ptr[g + 1]))
        alone = chains([size], batch.atoms[rows], 40 + g)
        for chosen, found in zip(options, together, strict=True):
            assert torch.equal(model.sample(alone.graph, alone.ids, 3, **chosen), found[rows])
        assert torch.equal(model.trajectory(alone.graph, alone.ids, 3, (0.5,))[0].atoms, frames[0].atoms[rows])
        with torch.no_grad():
            assert torch.equal(model.log_prob(alone, 3, samples=3).value, bounds[g : g + 1])


def test_ddim_with_eta_one_is_ancestral_and_all_steps_are_the_chain():
    model, batch = untrained(), chains([9, 8])
    ancestral = model.sample(batch.graph, batch.ids, 1)
    assert torch.equal(model.sample(batch.graph, batch.ids, 1, steps=60, sampler="ddim", eta=1.0), ancestral)
    assert not torch.equal(model.sample(batch.graph, batch.ids, 1, sampler="ddim"), ancestral)
    assert model._chain(4) == [60, 45, 30, 15, 0] and model._chain(None) == list(range(60, -1, -1))
    assert model._chain(7) == sorted(set(model._chain(7)), reverse=True)


def test_trajectory_is_that_of_the_sample():
    model, batch = untrained(), chains([4, 5])
    frames = model.trajectory(batch.graph, batch.ids, 1, (0.0, 0.4, 1.0), steps=10)
    assert [frame.time for frame in frames] == [0.0, 0.4, 1.0]
    x = model.noise(batch.graph, batch.ids, 1, Stream.PRIOR)
    with torch.no_grad():
        first = model.bind_probabilities(batch.graph)(*model.signal(torch.tensor([60, 60])), x)
    assert torch.allclose(frames[0].atoms, first, atol=1e-6)
    assert torch.equal(frames[2].atoms.argmax(1), model.sample(batch.graph, batch.ids, 1, steps=10))


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "v"])
def test_renaming_atoms_renames_the_walk(prediction):
    model, batch = untrained(prediction=prediction).double(), chains([7])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    renamed = GraphBatch.from_edge_index(
        order.argsort()[batch.graph.edge_index], 7, edge_attr=batch.graph.edge_attr.clone()
    )
    x = model.noise(batch.graph, batch.ids, 0, Stream.PRIOR)
    ends = []
    for graph, start in ((batch.graph, x), (renamed, x[order])):
        mean = model.bind_mean(graph)
        with torch.no_grad():
            ends.append(
                denoising_chain(
                    lambda k, state, mean=mean: mean(*model.signal(torch.tensor([60 - k])), state),
                    start, graph, model.alpha_bars[60:20:-1], predicts="data", eta=0.0,
                )
            )  # fmt: skip
    assert torch.allclose(ends[0][order], ends[1], atol=1e-8)
    assert not torch.allclose(ends[0], ends[1], atol=1e-2)


def test_loss_and_bound_are_functions_of_seed_and_step():
    model, batch = untrained(), chains([4, 5])
    for value in (model.loss, lambda *key: model.log_prob(*key).value):
        assert torch.equal(value(batch, 1, 2), value(batch, 1, 2))
        assert not torch.equal(value(batch, 1, 2), value(batch, 1, 3))
        assert not torch.equal(value(batch, 1, 2), value(batch, 2, 2))
    solver = {"trace": "exact", "method": "rk4", "steps": 8}
    assert torch.equal(model.log_prob(batch, 1, **solver).value, model.log_prob(batch, 1).value)


def test_saved_model_is_the_same_model(tmp_path):
    model, batch = untrained(schedule="cosine", prediction="v", scale=1.5), chains([4, 5])
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, GraphDDPM) and again.settings == model.settings
    assert torch.equal(again.loss(batch, 0), model.loss(batch, 0))


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"schedule": "quadratic"}, "schedule 'quadratic'"),
        ({"prediction": "score"}, "prediction 'score'"),
        ({"chain": 20}, "linear schedule of 20"),
        ({"chain": 1, "schedule": "cosine"}, "chain"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_settings_are_checked(settings, complaint):
    with pytest.raises(GraphgenError, match=complaint) as caught:
        untrained(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"sampler": "euler"}, "sampler 'euler'"),
        ({"eta": 0.5}, "eta"),
        ({"sampler": "ddim", "eta": 1.5}, "eta"),
        ({"steps": 61}, "choose 1 to 60"),
        ({"steps": 0}, "choose 1 to 60"),
    ],
)
def test_sampling_options_are_checked(options, complaint):
    batch = chains([3])
    with pytest.raises(GraphgenError, match=complaint):
        untrained().sample(batch.graph, batch.ids, 0, **options)
