"""Mixtures against closed forms, and the losses that read them."""

import math
from itertools import pairwise

import pytest
import torch
from draws import randint, randn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from graphgen.federated.losses import density_weights, discrepancy, posterior_weights
from graphgen.federated.mixture import Mixture, divergence


def some_mixture(seed, components=3, features=4):
    shapes = (components,), (components, features), (components, features)
    return Mixture(*(randn(*shape, seed=seed + k) for k, shape in enumerate(shapes)))


def as_torch(mixture):
    parts = Independent(Normal(mixture.means, (0.5 * mixture.log_variances).exp()), 1)
    return MixtureSameFamily(Categorical(logits=mixture.log_weights), parts)


def test_density_is_that_of_torch():
    mixture, z = some_mixture(0), 2 * randn(20, 4, seed=9)
    torch.testing.assert_close(mixture.log_density(z), as_torch(mixture).log_prob(z))
    torch.testing.assert_close(mixture.posterior(z).sum(1), torch.ones(20, dtype=z.dtype))


def test_one_component_a_class_is_its_mean_and_variance():
    z, labels = randn(90, 4, seed=1), randint(0, 3, 90, seed=2)
    mixture = Mixture.of_classes(z, labels, 4)  # the last class has no example
    for k in range(3):
        torch.testing.assert_close(mixture.means[k], z[labels == k].mean(0))
        torch.testing.assert_close(mixture.log_variances[k].exp(), z[labels == k].var(0, correction=0))
    torch.testing.assert_close(mixture.log_weights[:3].softmax(0), labels.bincount() / 90.0, check_dtype=False)
    torch.testing.assert_close(mixture.means[3], z.mean(0))


def test_every_step_of_em_makes_the_data_likelier_and_finds_a_moved_mixture():
    true = Mixture(torch.tensor([0.2, 0.8]).log(), torch.tensor([[-3.0, 0.0], [3.0, 1.0]]), torch.zeros(2, 2))
    torch.manual_seed(0)
    z = as_torch(true).sample((4000,))
    mixture = Mixture(torch.zeros(2), true.means + 1.5, torch.ones(2, 2))
    likely = [float(mixture.moved(z, steps).log_density(z).mean()) for steps in range(6)]
    assert all(after >= before - 1e-6 for before, after in pairwise(likely))
    found = mixture.moved(z, 30)
    torch.testing.assert_close(found.means, true.means, atol=0.15, rtol=0)
    torch.testing.assert_close(found.log_weights.softmax(0), torch.tensor([0.2, 0.8]), atol=0.02, rtol=0)


def test_a_component_that_all_have_left_stays():
    far = Mixture(torch.zeros(2), torch.tensor([[0.0], [1000.0]]), torch.zeros(2, 1))
    moved = far.moved(torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), 3)
    assert moved.means[1].item() == 1000 and all(bool(t.isfinite().all()) for t in moved.tensors().values())


def test_divergence_of_single_gaussians_is_exact_and_of_equals_is_nothing():
    p, q = some_mixture(0, components=1), some_mixture(5, components=1)
    one, other = (Independent(Normal(m.means[0], (0.5 * m.log_variances[0]).exp()), 1) for m in (p, q))
    exact = kl_divergence(one, other) + kl_divergence(other, one)
    assert divergence(p, q) == pytest.approx(float(exact), rel=1e-10)
    many = some_mixture(3)
    assert divergence(many, many) == pytest.approx(0, abs=1e-12)
    shifted = Mixture(many.log_weights, many.means + 1, many.log_variances)
    further = Mixture(many.log_weights, many.means + 3, many.log_variances)
    assert 0 < divergence(many, shifted) < divergence(many, further)


def test_discrepancy_is_the_l1_distance():
    p, q = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert float(discrepancy(p, q)) == 1 and float(discrepancy(p, p)) == 0
    assert float(discrepancy(p, q, torch.tensor([0.5, 1.5]))) == 0.5


def test_weights_have_mean_one_and_grow_with_the_density():
    log_density = torch.tensor([-300.0, -200.0, -100.0])
    weights = density_weights(log_density, 50)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[2] / weights[1]) == pytest.approx(math.exp(2), rel=1e-5)
    posterior = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    torch.testing.assert_close(posterior_weights(posterior, torch.tensor([0, 0])), torch.tensor([1.5, 0.5]))
