from itertools import pairwise

import pytest
import torch
from exact_flow import NOISES, exact_posteriors, path_law

from graphgen.solvers import discrete_flow

ALL_PATHS = pytest.mark.parametrize("path", list(NOISES))
ALL_ETAS = pytest.mark.parametrize("eta", [0.0, 3.0])
TYPES = 3


def of_end(end, states):
    """[S, types] the posterior of one who knows the end, whatever the state."""
    return torch.nn.functional.one_hot(torch.tensor(end), TYPES).double().expand(states, -1)


def test_draws_have_the_law_and_never_probability_zero():
    law = torch.tensor([0.0, 0.1, 0.0, 0.0, 0.9, 0.0])
    uniform = torch.arange(2**16) / 2**16
    shares = torch.bincount(discrete_flow.draw(law.expand(2**16, -1), uniform), minlength=6) / 2**16
    assert torch.allclose(shares, law, atol=2**-15) and bool((shares[law == 0] == 0).all())
    generator = torch.Generator().manual_seed(0)
    laws = torch.rand(20_000, 6, generator=generator) * (torch.rand(20_000, 6, generator=generator) < 0.5)
    laws[:, 2] += 1e-3
    for extreme in (0.0, 1 - 2.0**-24):  # where rounding could leave the law
        drawn = discrete_flow.draw(laws, torch.full((20_000,), extreme))
        assert bool((laws.gather(1, drawn.unsqueeze(1)) > 0).all())


@ALL_PATHS
def test_states_on_the_path_have_its_marginals(path):
    noise, count = NOISES[path], 40_000
    uniform = torch.rand(count, 2, generator=torch.Generator().manual_seed(1))
    for t in (0.0, 0.3, 0.9):
        ends = torch.full((count,), 2)
        drawn = discrete_flow.corrupt(ends, torch.full((count,), t), noise, uniform)
        expected = path_law(torch.tensor(2), t, noise)
        shares = torch.bincount(drawn, minlength=len(noise)) / count
        assert bool(((shares - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt() + 1e-6).all())


@ALL_PATHS
def test_evidence_is_bayes_rule(path):
    noise = NOISES[path]
    prior = torch.tensor([0.2, 0.5, 0.3])  # of the end, given all the other tokens
    for t in (0.0, 0.4, 0.999):
        for state in range(len(noise)):
            exact = prior * path_law(torch.arange(TYPES), t, noise)[:, state]
            if exact.sum() == 0:
                continue
            own = discrete_flow.evidence(torch.tensor([state]), torch.tensor([t]), noise)
            logits = prior.log() + (torch.arange(TYPES) == state) * own
            assert torch.allclose(logits.softmax(0), exact / exact.sum(), atol=1e-6)


@ALL_PATHS
@ALL_ETAS
@pytest.mark.parametrize("end", range(TYPES))
def test_rates_keep_to_the_path(path, eta, end):
    """Kolmogorov's equation: the mass that flows into a state is the derivative of the path."""
    noise = NOISES[path].double()
    states, t = len(noise), 0.35
    rates = discrete_flow.rates(torch.arange(states), of_end(end, states), t, noise, eta)
    assert torch.allclose(rates.sum(1), torch.zeros(states, dtype=torch.float64), atol=1e-12)
    assert bool((rates - rates.diagonal().diag() >= 0).all())
    flow = path_law(torch.tensor(end), t, noise) @ rates
    assert torch.allclose(flow, path_law(torch.tensor(end), 1.0, noise) - noise, atol=1e-12)


@ALL_PATHS
def test_eta_is_a_flow_in_detailed_balance(path):
    noise = NOISES[path].double()
    states, t = len(noise), 0.35
    known = of_end(1, states)
    extra = discrete_flow.rates(torch.arange(states), known, t, noise, 3.0)
    extra = extra - discrete_flow.rates(torch.arange(states), known, t, noise)
    flow = path_law(torch.tensor(1), t, noise).unsqueeze(1) * extra
    assert torch.allclose(flow, flow.T, atol=1e-12) and float(flow.abs().max()) > 0


@ALL_PATHS
@ALL_ETAS
def test_a_step_is_exact_for_a_known_end_and_follows_the_rates_for_any_posterior(path, eta):
    noise = NOISES[path].double()
    states = torch.arange(len(noise))
    for t, end in ((0.0, 0.7), (0.2, 0.9), (0.5, 1.0)):
        law = discrete_flow.transition(states, of_end(2, len(noise)), t, end, noise, eta)
        assert torch.allclose(
            path_law(torch.tensor(2), t, noise) @ law, path_law(torch.tensor(2), end, noise), atol=1e-12
        )
    posterior = torch.rand(len(noise), TYPES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    posterior /= posterior.sum(1, keepdim=True)
    step = 1e-6
    law = discrete_flow.transition(states, posterior, 0.4, 0.4 + step, noise, eta)
    rates = discrete_flow.rates(states, posterior, 0.4, noise, eta)
    assert torch.allclose((law - torch.eye(len(noise))) / step, rates, atol=1e-4)
    last = discrete_flow.transition(states, posterior, 0.4, 1.0, noise, eta)
    assert torch.allclose(last[:, :TYPES], posterior, atol=1e-12) and not bool(last[:, TYPES:].any())


@pytest.mark.parametrize("clock", list(discrete_flow.CLOCKS))
def test_clocks_rise_from_0_to_1(clock):
    times = [discrete_flow.CLOCKS[clock](step / 20) for step in range(21)]
    assert times[0] == 0 and times[-1] == 1 and all(a < b for a, b in pairwise(times))
    renewed = [(b - a) / (1 - a) for a, b in pairwise(times)]
    if clock == "geometric":
        assert renewed[:10] == pytest.approx([renewed[0]] * 10, rel=0.05)
        assert renewed[-1] == 1 and 0 < 1 - times[-2] < 0.001
    else:
        assert renewed[-2] > 0.49


@ALL_PATHS
@ALL_ETAS
@pytest.mark.parametrize("clock", list(discrete_flow.CLOCKS))
def test_with_the_exact_posterior_the_data_is_reached_to_first_order(path, eta, clock):
    """Two dependent tokens, the law of both carried through all steps without drawing."""
    noise = NOISES[path].double()
    count = len(noise)
    outcomes = torch.cartesian_prod(torch.arange(TYPES), torch.arange(TYPES))
    law = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) ** 4
    law /= law.sum()
    state = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    time = discrete_flow.CLOCKS[clock]
    errors = []
    for steps in (60, 120):
        found = torch.outer(noise, noise).flatten()
        for step in range(steps):
            t, end = time(step / steps), time((step + 1) / steps)
            posteriors = exact_posteriors(outcomes, law, state, t, [noise, noise])
            one, other = (discrete_flow.transition(state[:, i], posteriors[i], t, end, noise, eta) for i in range(2))
            found = found @ (one.unsqueeze(2) * other.unsqueeze(1)).flatten(1)
        assert float(found.sum()) == pytest.approx(1)
        errors.append(float((found.view(count, count)[:TYPES, :TYPES].flatten() - law).abs().sum()))
    assert errors[1] < 0.03 and errors[1] < 0.65 * errors[0]


@ALL_PATHS
def test_surprise_is_the_divergence_of_the_rates(path):
    noise, t = NOISES[path].double(), 0.6
    states = torch.arange(len(noise))
    logits = torch.randn(len(noise), TYPES, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    theirs = discrete_flow.rates(states, logits.softmax(1), t, noise)
    for end in range(TYPES):
        true = discrete_flow.rates(states, of_end(end, len(noise)), t, noise)
        apart = torch.special.xlogy(true, true / theirs) - true + theirs
        apart = apart.masked_fill(torch.eye(len(noise), dtype=torch.bool), 0.0).nansum(1)  # no rate to masks: 0 / 0
        found = discrete_flow.surprise(states, torch.full_like(states, end), logits)
        assert torch.allclose(found / (1 - t), apart, atol=1e-12)


def test_the_masks_surprise_adds_up_to_the_entropy():
    """Two dependent tokens, over all states and a fine grid of times."""
    noise = NOISES["absorbing"].double()
    outcomes = torch.cartesian_prod(torch.arange(TYPES), torch.arange(TYPES))
    law = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) ** 4
    law /= law.sum()
    state = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    total = torch.zeros(9, dtype=torch.float64)
    for t in ((torch.arange(400) + 0.5) / 400).tolist():
        posteriors = exact_posteriors(outcomes, law, state, t, [noise, noise])
        for number, outcome in enumerate(outcomes):
            chance = path_law(outcome, t, noise)[0, state[:, 0]] * path_law(outcome, t, noise)[1, state[:, 1]]
            missed = sum(
                discrete_flow.surprise(state[:, i], outcome[i].expand(16), posteriors[i].clamp(min=1e-300).log())
                for i in range(2)
            )
            total[number] += chance @ missed / (1 - t) / 400
    assert torch.allclose(total, -law.log(), atol=1e-3)
