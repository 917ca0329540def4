import math

import pytest
import torch
from autoencoders import THREE, TWO, chains, marginal, rings, shuffled, sixteen

from graphgen import GraphgenError
from graphgen.latent import reconstruct
from graphgen.models import MPGVAE, GraphVAE, load
from graphgen.molecules.complete import CompleteGraphs
from graphgen.molecules.orders import canonical_order
from graphgen.train import TrainSettings, train

KINDS = {
    MPGVAE: {"hidden": 16, "pair_hidden": 8, "encoder_hidden": 16, "layers": 2, "encoder_layers": 2, "heads": 2},
    GraphVAE: {"hidden": 8, "layers": 2},
}


@pytest.fixture(autouse=True)
def one_thread(threads):
    """These tensors are so small that a second thread only waits for the first."""
    with threads(1):
        yield


@pytest.fixture(scope="module")
def data():
    return chains()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request):
    """Both autoencoders keep all that is promised here; what is a GraphVAE's own is in its own file."""
    return request.param


def untrained(kind, vocabulary, seed=0, **settings):
    torch.manual_seed(seed)
    return kind(vocabulary, **{**KINDS[kind], "latent": 4, "kl_anneal_steps": 20, **settings})


def fitted(kind, data, **settings):
    model = untrained(kind, data.vocabulary, **settings)
    model.fit_prior(data)
    return model


def drawn(model, ids, **options):
    return model.sample(torch.as_tensor(ids), 3, **options).molecules(model.vocabulary)


def learnt(model, batch, steps, lr=1e-2):
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        optimizer.zero_grad()
        model.loss(batch, 0, step).backward()
        optimizer.step()
    return model


# ---- the bound ------------------------------------------------------------------------------------------------------


def test_the_posterior_does_not_depend_on_the_order_of_atoms(kind):
    batch = rings()
    model = untrained(kind, THREE)
    for given, found in zip(model.posterior(batch), model.posterior(shuffled(batch)[0]), strict=True):
        assert torch.allclose(found, given, atol=1e-6, rtol=0) and float(given.detach().std()) > 1e-3


def test_the_bound_does_not_depend_on_it_either(kind):
    batch = rings()
    model = untrained(kind, THREE)
    model.size_counts[5:9] = 1
    with torch.no_grad():
        given, found = (model.log_prob(molecules, samples=3).value for molecules in (batch, shuffled(batch)[0]))
    assert torch.allclose(found, given, atol=1e-4, rtol=0)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def trained_on_sixteen(request):
    """Of one latent number, on two atoms; by a small weight of the divergence, so that it is made use of."""
    model = untrained(request.param, TWO, latent=1, kl_weight=0.1).double()
    model.size_counts[2], model.size_counts[5] = 3, 1
    return learnt(model, sixteen().batch(torch.arange(16)), 60)


def at(model, noise):
    """[len(noise), 16] the bound of one sample each, where the latents' noise has these values."""
    many = sixteen().batch(torch.arange(16).repeat(len(noise)))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(model, "_noise", lambda *_: noise.repeat_interleave(16).unsqueeze(1))
        return model.log_prob(many).value.view(-1, 16)


def test_the_bound_is_below_the_exact_marginal_and_tighter_with_more_samples(trained_on_sixteen):
    model, batch = trained_on_sixteen, sixteen().batch(torch.arange(16))
    exact = marginal(model)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-6)  # the quadrature misses nothing
    read = CompleteGraphs.of(batch).reordered(canonical_order(batch.graph, batch.atoms))
    exact = exact[read.atoms.view(16, 2) @ torch.tensor([8, 4]) + read.pairs] + math.log(0.75)
    noise = torch.linspace(-60, 60, 3001, dtype=torch.float64)
    density = -0.5 * noise.square() - 0.5 * math.log(2 * math.pi) + math.log(120 / 3000)
    one = at(model, noise)
    # The mean of the weights is the probability itself, whatever the encoder says; the decoder has sharp borders in z.
    assert torch.allclose((one + density.unsqueeze(1)).logsumexp(0), exact, atol=1e-3)
    elbo = (one * density.exp().unsqueeze(1)).sum(0)
    assert bool((elbo < exact - 3e-3).all())
    copies = sixteen().batch(torch.arange(16).repeat(300))._replace(ids=torch.arange(4800))
    with torch.no_grad():
        single, eight = (model.log_prob(copies, samples=k) for k in (1, 8))
    for found, expected in ((single.value.view(300, 16), elbo), (eight.value.view(300, 16), None)):
        mean, stderr = found.mean(0), found.std(0) / 300**0.5
        if expected is not None:
            assert bool(((mean - expected).abs() < 5 * stderr).all())
        assert bool((mean < exact + 4 * stderr).all())
    assert float(elbo.mean()) + 0.3 * float((exact - elbo).mean()) < float(eight.value.mean()) < float(exact.mean())
    assert bool(single.stderr.isnan().all()) and bool((eight.stderr > 0).all())


def test_the_loss_is_minus_the_mean_bound_at_weight_one(data):
    model = fitted(MPGVAE, data, kl_weight=1.0)
    batch = data.batch(range(20))
    with torch.no_grad():
        loss = sum(float(model.loss(batch, 0, 100 + step)) for step in range(100)) / 100
        bound = sum(model.log_prob(batch, 0, 100 + step).value.sum() for step in range(100)) / 100
    of_sizes = model.log_prob_of_sizes(batch.graph.ptr.diff()).sum()
    assert loss == pytest.approx(float(of_sizes - bound) / len(batch.atoms), rel=0.02)


def test_the_weight_of_the_divergence_rises(data):
    model, batch = fitted(MPGVAE, data, kl_weight=0.5, kl_anneal_steps=10), data.batch(range(20))
    with torch.no_grad():
        mean, log_std = model.posterior(batch)
        divergence = float((0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum()) / len(batch.atoms)
        model.settings["kl_weight"] = 0.0
        free = {step: float(model.loss(batch, 0, step)) for step in (0, 4, 9, 500)}
        model.settings["kl_weight"] = 0.5
        for step, share in ((0, 0.1), (4, 0.5), (9, 1.0), (500, 1.0)):
            assert float(model.loss(batch, 0, step)) - free[step] == pytest.approx(0.5 * share * divergence, rel=1e-3)


# ---- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_same_molecules_for_any_batch_size_and_order(kind, data, temperature):
    model = learnt(fitted(kind, data), data.batch(range(30)), 10)
    together = drawn(model, range(40), temperature=temperature)
    assert len(set(together)) > 4
    parts = [molecule for part in torch.arange(40).split(7) for molecule in drawn(model, part, temperature=temperature)]
    assert parts == together
    assert drawn(model, torch.arange(39, -1, -1), temperature=temperature) == together[::-1]
    assert model.sample(torch.arange(40), 4, temperature=temperature).molecules(model.vocabulary) != together


def test_at_temperature_one_labels_have_the_models_own_law(trained_on_sixteen):
    model, count = trained_on_sixteen, 4000
    whole = model.sample(torch.arange(count), 1, torch.full((count,), 2), temperature=1.0)
    shares = torch.bincount(whole.atoms.view(-1, 2) @ torch.tensor([8, 4]) + whole.pairs, minlength=16) / count
    law = marginal(model).exp()
    assert bool(((shares - law).abs() <= 4 * (law * (1 - law) / count).sqrt()).all())


# ---- learning -------------------------------------------------------------------------------------------------------


def test_it_learns_a_few_molecules_by_heart_and_makes_them(kind, data):
    model = learnt(fitted(kind, data, kl_weight=0.1), data.batch(range(30)), 150)
    back = reconstruct(model, data, progress=False)
    assert back.molecules == 60 and back.identical >= 57 and back.largest_error is None
    assert reconstruct(untrained(kind, data.vocabulary, seed=3), data, progress=False).identical < 20
    known = {(*sorted(m.atoms), len(m.bonds)) for m in map(data.graph, range(60))}
    made = drawn(model, range(50))
    assert sum((*sorted(m.atoms), len(m.bonds)) in known for m in made) >= 40


def test_training_goes_to_disk_and_resumes(kind, data, tmp_path):
    settings = TrainSettings(epochs=3, batch_size=16, lr=1e-2, seed=3)
    model = untrained(kind, data.vocabulary)
    records = train(model, data, tmp_path / "run", settings, progress=False)
    assert records[-1]["nats"] < records[0]["nats"]
    again = load(tmp_path / "run")
    assert type(again) is kind and again.settings == model.settings
    assert drawn(again, range(5)) == drawn(model, range(5))
    broken, calls = untrained(kind, data.vocabulary), 0
    original = broken.loss

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return original(*args)

    broken.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        train(broken, data, tmp_path / "broken", settings, progress=False)
    resumed = untrained(kind, data.vocabulary, seed=9)
    train(resumed, data, tmp_path / "broken", settings, resume=True, progress=False)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in model.state_dict().items())


def test_settings_out_of_range_are_refused(kind):
    for wrong, message in (
        ({"matching": "best"}, "matching 'best': choose one of canonical, max-pool, hungarian"),
        ({"latent": 0}, r"latent \(0\) must be at least 1"),
        ({"kl_weight": -1.0}, r"kl weight \(-1.0\)"),
    ):
        with pytest.raises(GraphgenError, match=message):
            untrained(kind, TWO, **wrong)
    with pytest.raises(GraphgenError, match="temperature"):
        untrained(kind, TWO).sample(torch.arange(2), 0, torch.full((2,), 2), temperature=-1.0)
    with pytest.raises(GraphgenError, match="heads"):
        MPGVAE(TWO, hidden=16, heads=3)
