import math

import pytest
import torch
from draws import randn

from graphgen import GraphBatch, ops
from graphgen.errors import GraphgenError
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import VE, VP, SubVP
from graphgen.solvers import annealed_langevin, langevin, reverse_sde

WIDE = torch.float64
PTR = torch.tensor([0, 3, 3, 10, 11])
IDS = torch.tensor([7, 2**40, 0, 12])
WEIGHTS, MEANS, STD = (0.3, 0.7), (-1.0, 1.5), 0.6


@pytest.fixture(autouse=True)
def _plainly(threads):
    # On one thread: what is small here would wait for the other.
    with torch.no_grad(), threads(1):
        yield


def mixture_score(x, std=STD):
    """Of a mixture of two normals."""
    logs = torch.stack([math.log(w) - (x - m) ** 2 / (2 * std**2) for w, m in zip(WEIGHTS, MEANS, strict=True)])
    share = torch.softmax(logs, 0)
    return sum(p * (m - x) for p, m in zip(share, MEANS, strict=True)) / std**2


def mixture_cdf(at, std=STD):
    at = torch.as_tensor(at, dtype=WIDE)
    return sum(w * 0.5 * (1 + torch.erf((at - m) / (std * math.sqrt(2)))) for w, m in zip(WEIGHTS, MEANS, strict=True))


def is_the_mixture(x, std=STD):
    """Within 4 standard errors at quantiles all over."""
    count = x.numel()
    for at in (-2.0, -1.0, 0.2, 1.0, 1.5, 2.2):
        expected = float(mixture_cdf(at, std))
        found = float((x < at).double().mean())
        assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / count) + 2e-3, (at, found, expected)


def test_langevin_is_stationary_on_a_mixture_of_normals():
    count = 20_000
    ptr = torch.tensor([0, count])
    x = langevin(mixture_score, torch.zeros(count, 1, dtype=WIDE), ptr, 0.02, 500, seed=1)
    is_the_mixture(x)
    # At another temperature it is another density: of a normal, of another variance.
    x = langevin(lambda x: -x, torch.zeros(count, 1, dtype=WIDE), ptr, 0.02, 300, temperature=0.25, seed=1)
    variance = 0.25 / (1 - 0.01)  # of the chain with steps of this size
    assert abs(float(x.var()) - variance) < 4 * variance * math.sqrt(2 / count)


def test_annealed_langevin_samples_a_mixture_of_normals():
    count = 5_000
    ptr, sigmas = torch.tensor([0, count]), [3.0, 1.5, 0.8, 0.4, 0.2]

    def score(sigma, x):
        return mixture_score(x, math.sqrt(STD**2 + float(sigma[0]) ** 2))

    x = annealed_langevin(score, 3 * randn(count, 1, seed=1), ptr, sigmas, 0.006, 100, seed=2)
    is_the_mixture(x, math.sqrt(STD**2 + 0.2**2))
    again = annealed_langevin(score, 3 * randn(count, 1, seed=1), ptr, sigmas, 0.006, 100, seed=2, denoise=True)
    torch.testing.assert_close(again, x + 0.04 * score(torch.tensor([0.2]), x))


@pytest.mark.parametrize("sde", [VP(0.1, 10.0), VE(0.05, 5.0), SubVP(0.1, 10.0)])
@pytest.mark.parametrize(
    ("predictor", "corrections"),
    [("euler_maruyama", 0), ("reverse_diffusion", 0), ("ancestral", 0), ("reverse_diffusion", 1)],
)
def test_a_gaussian_comes_back(sde, predictor, corrections):
    """With its exact score."""
    count, mean, std, end = 20_000, 2.0, 0.5, 1e-3
    ptr = torch.tensor([0, count])

    def moments(t):
        return mean * sde.mean(t), (std * sde.mean(t)) ** 2 + sde.std(t) ** 2

    at, variance = moments(1.0)
    x = at + math.sqrt(variance) * ops.normal(ptr, 1, 1, dtype=WIDE)

    def score(t, x):
        at, variance = moments(float(t[0]))
        return (at - x) / variance

    if predictor == "ancestral" and isinstance(sde, SubVP):
        with pytest.raises(ValueError, match="ancestral"):
            reverse_sde(score, x, ptr, sde, 10, predictor=predictor)
        return
    x = reverse_sde(
        score, x, ptr, sde, 250, t1=end, predictor=predictor, corrections=corrections, snr=0.05, seed=2, denoise=False
    )
    at, variance = moments(end)
    assert abs(float(x.mean()) - at) < 4 * math.sqrt(variance / count) + 0.01
    assert abs(float(x.var()) - variance) < 4 * variance * math.sqrt(2 / count) + 0.02


def test_the_reverse_sde_is_its_steps():
    """One by one with the public ops, a corrector before every predictor; the last step without noise."""
    x, sde, steps = randn(11, 3, seed=1), VP(0.1, 2.0), 5
    keep = torch.arange(11) % 5 == 0
    options = dict(ptr=PTR, seed=3, graph_ids=IDS, keep=keep)

    def score(t, x):
        return -x * (1 + t.repeat_interleave(PTR.diff()).unsqueeze(1))

    y, dt = x, (1 - 0.1) / steps
    for k in range(steps):
        t = torch.full((4,), 1 - k * dt, dtype=WIDE)
        for c in range(2):
            alpha = 1 - sde.beta(1 - k * dt) * dt
            y = ops.annealed_langevin_step(y, score(t, y), 0.2, alpha=alpha, noise_scale=0.9, step=2 * k + c, **options)
        scale = 0.0 if k == steps - 1 else 1.0
        y = ops.reverse_sde_step(
            y, score(t, y), 1 - k * dt, dt, sde, predictor="reverse_diffusion", noise_scale=scale, step=k, **options
        )
    found = reverse_sde(
        score, x, PTR, sde, steps, t1=0.1, corrections=2, snr=0.2, corrector_noise=0.9,
        seed=3, graph_ids=IDS, keep=keep,
    )  # fmt: skip
    torch.testing.assert_close(found, y)
    turned = langevin(lambda x: -x, x.t().contiguous().t(), PTR, 0.1, 3)
    assert torch.equal(turned, langevin(lambda x: -x, x, PTR, 0.1, 3))
    assert torch.equal(found[keep], x[keep])


def test_ddpm_steps_are_the_posterior_all_along_a_chain():
    """If every link is q(x_next | x, x0), the state at each link is distributed as q(x_next | x0)."""
    count, data = 20_000, 1.3
    ptr = torch.tensor([0, count])
    betas = torch.linspace(1e-3, 0.2, 30, dtype=WIDE)
    alpha_bar = [1.0, *torch.cumprod(1 - betas, 0).tolist()]
    now = alpha_bar[-1]
    x = math.sqrt(now) * data + math.sqrt(1 - now) * ops.normal(ptr, 1, 1, dtype=WIDE)
    for k in range(len(betas), 0, -1):
        now, after = alpha_bar[k], alpha_bar[k - 1]
        eps = (x - math.sqrt(now) * data) / math.sqrt(1 - now)
        x = ops.ddpm_step(x, eps, now, after, ptr=ptr, seed=2, step=k)
        std = math.sqrt(1 - after)
        assert abs(float(x.mean()) - math.sqrt(after) * data) <= 4 * std / math.sqrt(count) + 1e-12
        assert abs(float(x.var()) - std**2) <= 4 * std**2 * math.sqrt(2 / count) + 1e-12


def test_a_graph_does_not_depend_on_its_batch():
    sizes, sde = [3, 0, 20, 1, 6], VP(0.1, 2.0)
    rows = [randn(n, 5, seed=k, dtype=torch.float32) for k, n in enumerate(sizes)]

    def solve(order):
        ptr = torch.tensor([0, *(sizes[k] for k in order)]).cumsum(0)
        ids = torch.tensor([11 * k + 5 for k in order])
        x = torch.cat([rows[k] for k in order])
        x = langevin(lambda x: -x * x * x, x, ptr, 0.01 + (ids % 3) / 100, 4, seed=2, graph_ids=ids)
        x = annealed_langevin(lambda s, x: -x, x, ptr, [1.0, 0.5], 0.01, 3, seed=2, graph_ids=ids, first_step=4)
        x = reverse_sde(lambda t, x: -x, x, ptr, sde, 5, corrections=1, graph_ids=ids)
        return dict(zip(order, x.split([sizes[k] for k in order]), strict=True))

    together = solve([0, 1, 2, 3, 4])
    for order in ([4, 2, 0, 1, 3], [2], [3, 1]):
        assert all(torch.equal(part, together[k]) for k, part in solve(order).items())


def test_nodes_and_pairs_come_back_together():
    """GDSS: two parts, each with an SDE of its own; both correctors look at the state before either moved."""
    graph = GraphBatch.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 7, ptr=torch.tensor([0, 3, 3, 7]))
    x, e = randn(7, 2, seed=1), torch.ones(25, 1, dtype=WIDE)

    def score(t, state):
        nodes, pairs = state
        return -nodes * pairs.mean(), -pairs * nodes.mean() ** 2

    sdes = (VP(0.1, 1.0), VE(0.2, 1.0))
    nodes, pairs = reverse_sde(score, (x, e), graph, sdes, 6, corrections=1, snr=(0.1, 0.2), seed=4)
    assert nodes.shape == x.shape
    first = 0
    for n in (3, 0, 4):
        block = pairs[first : first + n * n].view(n, n)
        assert torch.equal(block, block.t())
        first += n * n
    t = torch.ones(3, dtype=WIDE)
    of_x, of_e = score(t, (x, e))
    once = reverse_sde(score, (x, e), graph, sdes, 1, t0=0.5, t1=0.4, corrections=1, snr=(0.1, 0.2), seed=4)
    alpha = 1 - sdes[0].beta(0.5) * 0.1
    mid_x = ops.annealed_langevin_step(x, of_x, 0.1, alpha=alpha, ptr=graph.ptr, seed=4)
    pair_ptr = torch.tensor([0, 9, 9, 25])
    mid_e = ops.annealed_langevin_step(e, of_e, 0.2, ptr=pair_ptr, seed=4, symmetric=True, stream=Stream.PAIR_CORRECTOR)
    of_x, of_e = score(t, (mid_x, mid_e))
    expected = ops.reverse_sde_step(
        mid_e, of_e, 0.5, 0.5 - 0.4, sdes[1], predictor="reverse_diffusion", noise_scale=0.0, ptr=pair_ptr
    )
    torch.testing.assert_close(once[1], expected)


def test_gradients_go_through_the_steps():
    x = randn(11, 2, seed=1).requires_grad_()
    with torch.enable_grad():
        assert torch.autograd.gradcheck(lambda x: langevin(lambda x: -torch.sin(x), x, PTR, 0.1, 3, seed=1), (x,))
        assert torch.autograd.gradcheck(
            lambda x: reverse_sde(lambda t, x: -torch.sin(x), x, PTR, VP(0.1, 1.0), 3, corrections=1), (x,)
        )


def test_what_is_not_finite_is_named_or_masked():
    x = torch.full((11, 2), 0.1)
    x[10] = 50.0

    def score(x):
        return x**5

    with pytest.raises(GraphgenError, match=r"langevin: not finite at step \d+, level 0, graphs 12"):
        langevin(score, x, PTR, 0.1, 40, seed=1, graph_ids=IDS)
    end = langevin(score, x, PTR, 1e-3, 40, seed=1, graph_ids=IDS, on_nonfinite="mask", temperature=0.0)
    assert bool(end[10:].isnan().all()) and bool(end[:10].isfinite().all())
    with pytest.raises(GraphgenError, match=r"reverse_sde: not finite at step \d+, t = 0\.\d+, graphs 3"):
        reverse_sde(lambda t, x: score(x), x, PTR, VP(), 40)
    with pytest.raises(ValueError, match="t1 < t0"):
        reverse_sde(lambda t, x: x, x, PTR, VP(), 4, t0=0.1, t1=0.5)
