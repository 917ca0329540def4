import math

import pytest
import torch
from draws import randn
from torch.autograd import gradcheck

from graphgen import GraphBatch, ops
from graphgen.errors import GraphgenError
from graphgen.ops.noise import Stream
from graphgen.ops.stepping import VP, PreparedStep
from graphgen.solvers import sdeint

WIDE = torch.float64
PULL, SPREAD = 1.0, 0.4  # Ornstein and Uhlenbeck's process
PTR = torch.tensor([0, 3, 3, 10, 11])
IDS = torch.tensor([7, 2**40, 0, 12])


@pytest.fixture(autouse=True)
def _plainly(threads):
    # On one thread: what is small here would wait for the other.
    with torch.no_grad(), threads(1):
        yield


# ---- orders ---------------------------------------------------------------------------------------------------------

COUNT, STEPS, SEED = 60_000, (8, 16, 32, 64), 3


def geometric(method, kind, sense, drift, volatility, n, seed):
    """Ends of the solver and of the closed form, on the same paths."""
    ptr = torch.tensor([0, COUNT]) if kind == "diagonal" else torch.arange(COUNT + 1)
    mixed = torch.tensor([0.6, 0.8], dtype=WIDE)
    growth = drift - volatility**2 / 2
    slope = drift if sense == "ito" else growth

    def g(t, x):
        return (volatility * x).unsqueeze(2) * mixed if kind == "general" else volatility * x

    x = torch.ones(COUNT, 1, dtype=WIDE)
    end = sdeint(lambda t, x: slope * x, g, x, ptr, 0, 1, n, method, noise=kind, sense=sense, seed=seed)
    motions = 2 if kind == "general" else 1
    w = sum(ops.normal(ptr, motions, seed, Stream.STEP, k, dtype=WIDE) for k in range(n)) / math.sqrt(n)
    w = (w * mixed).sum(1, keepdim=True) if kind == "general" else w
    return end, torch.exp(growth + volatility * w)


def ornstein(method, sense, n, seed):
    """The same for additive noise: what the path does within a step, given what the solver knows of it."""
    ptr, h = torch.tensor([0, COUNT]), 1 / n
    xi, zeta, rest = (
        [ops.normal(ptr, 1, seed, stream, k, dtype=WIDE) for k in range(n)] for stream in (Stream.STEP, Stream.AREA, 99)
    )
    # The integral of exp(-PULL (h - s)) dw, by its covariances with the increment and with the mean of w.
    decay = math.exp(-PULL * h)
    with_w = (1 - decay) / PULL / math.sqrt(h)
    with_area = (1 - decay * (1 + PULL * h)) / PULL**2
    with_zeta = (with_area - with_w * h**1.5 / 2) / (h**1.5 / math.sqrt(12))
    left = math.sqrt(max((1 - decay**2) / (2 * PULL) - with_w**2 - with_zeta**2, 0.0))
    exact = torch.full((COUNT, 1), 2.0, dtype=WIDE)
    for a, b, c in zip(xi, zeta, rest, strict=True):
        exact = decay * exact + SPREAD * (with_w * a + with_zeta * b + left * c)
    x = torch.full((COUNT, 1), 2.0, dtype=WIDE)
    end = sdeint(lambda t, x: -PULL * x, SPREAD, x, ptr, 0, 1, n, method, noise="additive", sense=sense, seed=seed)
    return end, exact


def order(errors):
    """The slope of a line through the errors' logarithms."""
    sizes = torch.tensor([math.log(1 / n) for n in STEPS], dtype=WIDE)
    logs = torch.tensor(errors, dtype=WIDE).log()
    sizes, logs = sizes - sizes.mean(), logs - logs.mean()
    return float((sizes * logs).sum() / (sizes * sizes).sum())


def orders(of):
    strong, weak = [], []
    for n in STEPS:
        end, exact = of(n, SEED)
        strong.append(float((end - exact).abs().mean()))
        # On the same paths, so that what they share is not noise.
        weak.append(abs(float((end * end - exact * exact).mean())))
    return order(strong), order(weak)


GEOMETRIC = [
    ("euler", "diagonal", "ito", 0.5, 1.0),
    ("euler", "scalar", "ito", 0.5, 1.0),
    ("euler", "general", "ito", 0.5, 1.0),
    ("milstein", "diagonal", "ito", 1.0, 1.0),
    ("milstein", "scalar", "ito", 1.0, 1.0),
    ("milstein", "diagonal", "stratonovich", 1.0, 1.0),
    ("heun", "diagonal", "stratonovich", 1.0, 1.0),
    ("heun", "general", "stratonovich", 1.0, 1.0),
    ("srk", "diagonal", "ito", 1.5, 1.5),
    ("srk", "scalar", "ito", 1.5, 1.5),
]


@pytest.mark.parametrize(("method", "kind", "sense", "strong", "weak"), GEOMETRIC)
def test_orders_on_geometric_brownian_motion(method, kind, sense, strong, weak):
    # srk's weak order is seen where drift and noise pull apart: elsewhere its leading error is small.
    numbers = (-0.5, 0.8) if method == "srk" else (0.5, 0.6)
    found = orders(lambda n, seed: geometric(method, kind, sense, *numbers, n, seed))
    assert abs(found[0] - strong) < 0.15 and abs(found[1] - weak) < 0.25, found


# Where noise is additive, Euler's and Milstein's methods are one, and Heun's is of the second weak order; where the
# drift is linear besides, the strong order of srk is two.
ORNSTEIN = [
    ("euler", "ito", 1.0, 1.0),
    ("milstein", "stratonovich", 1.0, 1.0),
    ("heun", "ito", 1.0, 2.0),
    ("srk", "stratonovich", 2.0, 2.0),
]


@pytest.mark.parametrize(("method", "sense", "strong", "weak"), ORNSTEIN)
def test_orders_on_the_process_of_ornstein_and_uhlenbeck(method, sense, strong, weak):
    found = orders(lambda n, seed: ornstein(method, sense, n, seed))
    assert abs(found[0] - strong) < 0.15 and abs(found[1] - weak) < 0.25, found


def test_srk_is_of_strong_order_three_halves_where_the_drift_is_curved():
    """Roessler's step with increments and areas that the finest solve's own add up to."""
    count, fine = 1000, 512
    ptr, h = torch.tensor([0, count]), 1 / fine
    x = torch.full((count, 1), 0.5, dtype=WIDE)

    def f(t, x):
        return torch.sin(3 * x) - x + t

    def g(t, x):
        return (1 + t) * torch.ones_like(x)

    exact = sdeint(
        lambda t, x: f(t[0], x), lambda t, x: g(t[0], x), x, ptr, 0, 1, fine, "srk", noise="additive", seed=5
    )
    xi, zeta = (
        torch.stack([ops.normal(ptr, 1, 5, stream, k, dtype=WIDE) for k in range(fine)]) * math.sqrt(h)
        for stream in (Stream.STEP, Stream.AREA)
    )
    w = torch.cat([torch.zeros_like(xi[:1]), xi.cumsum(0)])
    integral = torch.cat([w[:1], (w[:-1] * h + (xi + zeta / math.sqrt(3)) * (h / 2)).cumsum(0)])

    def end(steps):
        y, size, every = x, 1 / steps, fine // steps
        for k in range(steps):
            first, last, t = k * every, (k + 1) * every, k * size
            move = w[last] - w[first]
            area = (integral[last] - integral[first]) / size - w[first]
            there = y + 0.75 * size * f(t, y) + 1.5 * g(t + size, y) * area
            drift = (f(t, y) + 2 * f(t + 0.75 * size, there)) / 3
            y = y + size * drift + g(t + size, y) * (move - area) + g(t, y) * area
        return y

    torch.testing.assert_close(end(fine), exact, rtol=1e-9, atol=1e-9)
    errors = [float((end(steps) - exact).abs().mean()) for steps in (32, 64, 128)]
    assert abs(math.log2(errors[0] / errors[2]) / 2 - 1.5) < 0.15, errors


# ---- promises -------------------------------------------------------------------------------------------------------

EVERY = [
    ("euler", "diagonal", "ito"),
    ("euler", "general", "ito"),
    ("milstein", "diagonal", "ito"),
    ("milstein", "scalar", "stratonovich"),
    ("heun", "diagonal", "stratonovich"),
    ("heun", "general", "stratonovich"),
    ("srk", "additive", "ito"),
    ("srk", "diagonal", "ito"),
    ("srk", "scalar", "ito"),
]


def field(kind):
    # Sums, products and quotients: torch's functions may round the ends of an array differently.
    def f(t, x):
        return x - 0.3 * x * x * x

    def g(t, x):
        if kind == "additive":
            return torch.full_like(x, 0.3)
        size = 0.3 + 0.2 * x / (1 + x * x)
        return torch.stack([size, size * x], 2) if kind == "general" else size

    return f, g


@pytest.mark.parametrize("dtype", [torch.float32, WIDE])
@pytest.mark.parametrize(("method", "kind", "sense"), EVERY)
def test_a_graph_does_not_depend_on_its_batch(method, kind, sense, dtype, threads):
    f, g = field(kind)
    sizes = [3, 0, 20, 1, 6]
    rows = [randn(n, 5, seed=k, dtype=dtype) for k, n in enumerate(sizes)]
    ends = torch.tensor([1.0, 0.5, 0.7, 2.0, 1.0])

    def solve(order):
        ptr = torch.tensor([0, *(sizes[k] for k in order)]).cumsum(0)
        ids = torch.tensor([11 * k + 5 for k in order])
        start, end = ends[order] / 4, ends[order]
        x = torch.cat([rows[k] for k in order])
        x = sdeint(f, g, x, ptr, start, end, 7, method, noise=kind, sense=sense, seed=2, graph_ids=ids)
        return dict(zip(order, x.split([sizes[k] for k in order]), strict=True))

    together = solve([0, 1, 2, 3, 4])
    for order in ([4, 2, 0, 1, 3], [2], [3, 1]):
        with threads(1 + len(order) % 3):
            assert all(torch.equal(part, together[k]) for k, part in solve(order).items())


@pytest.mark.parametrize(("method", "kind", "sense"), EVERY)
def test_gradients_through_a_solve(method, kind, sense):
    x, a, b = (randn(*shape, seed=k).requires_grad_() for k, shape in enumerate([(11, 2), (11, 2), (11, 2)]))
    f, g = field(kind)

    def solve(x, a, b, **options):
        return sdeint(
            lambda t, x: f(t, a * x), lambda t, x: b.unsqueeze(2) * g(t, x) if kind == "general" else b * g(t, x),
            x, PTR, 0, 1, 5, method, noise=kind, sense=sense, seed=4, graph_ids=IDS, **options,
        )  # fmt: skip

    with torch.enable_grad():
        assert gradcheck(solve, (x, a, b))
        weight = randn(11, 2, seed=9)
        grads = [
            torch.autograd.grad((weight * solve(x, a, b, checkpoint_every=every)).sum(), (x, a, b)) for every in (0, 2)
        ]
        assert all(torch.equal(p, q) for other in grads[1:] for p, q in zip(grads[0], other, strict=True))
        tracked = solve(x, a, b)
    assert torch.equal(tracked.detach(), solve(x, a, b))


@pytest.mark.parametrize(("kind", "sense"), [("diagonal", "ito"), ("scalar", "ito"), ("diagonal", "stratonovich")])
def test_the_adjoint_is_the_closed_form_of_geometric_brownian_motion(kind, sense):
    count, n = 50, 200
    ptr = torch.arange(count + 1)
    w = sum(ops.normal(ptr, 1, 6, Stream.STEP, k, dtype=WIDE) for k in range(n)) / math.sqrt(n)
    x = (1 + randn(count, 1, seed=1).abs()).requires_grad_()
    mu, sigma = (torch.tensor(v, dtype=WIDE, requires_grad=True) for v in (0.4, 0.5))
    with torch.enable_grad():
        end = sdeint(
            lambda t, x: mu * x, lambda t, x: sigma * x, x, ptr, 0, 1, n,
            "milstein", noise=kind, sense=sense, seed=6, gradient="adjoint", params=(mu, sigma),
        )  # fmt: skip
        grads = torch.autograd.grad(end.sum(), (x, mu, sigma))
    exact = torch.exp((mu - sigma**2 / 2 if sense == "ito" else mu) + sigma * w)
    end, slope = x * exact, w - sigma if sense == "ito" else w
    expected = (exact, end.sum(), (slope * end).sum())
    errors = [float((a - b).abs().mean() / b.abs().mean()) for a, b in zip(grads, expected, strict=True)]
    assert max(errors) < 0.02, errors


def test_the_adjoint_nears_the_gradient_through_the_steps():
    layer = torch.nn.Linear(3, 3, dtype=WIDE)
    x = randn(11, 3, seed=1).requires_grad_()
    keep = torch.arange(11) % 4 == 0

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, t, x):
            return torch.tanh(self.layer(x))

    f = Field()
    gaps = []
    for steps in (25, 100):
        grads = []
        for gradient in ("steps", "adjoint"):
            with torch.enable_grad():
                end = sdeint(
                    f, lambda t, x: 0.5 * torch.cos(x), x, PTR, 0, 1, steps, "heun",
                    sense="stratonovich", keep=keep, gradient=gradient,
                )  # fmt: skip
                grads.append(torch.autograd.grad(end.square().sum(), (x, *layer.parameters())))
        assert torch.equal(grads[1][0][keep], 2 * x.detach()[keep]) or not keep.any()
        gaps.append(max(float((a - b).norm() / a.norm()) for a, b in zip(*grads, strict=True)))
    assert gaps[1] < 0.04 and gaps[1] < gaps[0] / 2, gaps


def test_memory_of_checkpointed_gradients():
    """What is held for the backward pass grows with the square root of the steps."""

    def held(every):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        x = randn(11, 3, seed=1).requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            sdeint(lambda t, x: torch.sin(x), 0.1, x, PTR, 0, 1, 100, checkpoint_every=every)
        return sum(sizes)

    assert held(None) < held(0) / 4


def test_a_path_goes_on():
    x = randn(11, 3, seed=1)
    f, g = field("diagonal")
    whole = sdeint(f, g, x, PTR, 0, 1, 8, seed=3)
    half = sdeint(f, g, x, PTR, 0, 0.5, 4, seed=3)
    assert torch.equal(sdeint(f, g, half, PTR, 0.5, 1, 4, seed=3, first_step=4), whole)
    assert torch.equal(sdeint(f, g, x, PTR, 0, 1, 0), x)
    before = x.clone()
    assert torch.equal(sdeint(f, g, x.t().contiguous().t(), PTR, 0, 1, 8, seed=3), whole) and torch.equal(x, before)


def test_nodes_and_pairs_move_together():
    sizes = [3, 0, 4]
    graph = GraphBatch.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 7, ptr=torch.tensor([0, 3, 3, 7]))
    x, e = randn(7, 2, seed=1), torch.zeros(25, 3, dtype=WIDE)

    def f(t, state):
        nodes, pairs = state
        return -nodes, -pairs

    for method, kind in (("euler", "diagonal"), ("srk", "additive"), ("euler", "scalar")):
        nodes, pairs = sdeint(f, (1.0, 0.5), (x, e), graph, 0, 1, 10, method, noise=kind)
        assert torch.equal(nodes, sdeint(lambda t, x: -x, 1.0, x, graph, 0, 1, 10, method, noise=kind))
        first = 0
        for n in sizes:
            block = pairs[first : first + n * n].view(n, n, 3)
            assert torch.equal(block, block.transpose(0, 1)) and (n == 0 or block.abs().max() > 0.01)
            first += n * n


def test_a_diffusion_can_be_an_sde():
    x = randn(11, 3, seed=1)
    sde = VP()
    there = sdeint(lambda t, x: 0 * x, sde, x, PTR, 0, 1, 10)
    assert torch.equal(there, sdeint(lambda t, x: 0 * x, lambda t, x: sde.diffusion(t), x, PTR, 0, 1, 10))


# ---- what is not finite ---------------------------------------------------------------------------------------------


def explodes(t, x):
    return torch.where(x > 5, torch.inf, x * x)


@pytest.mark.parametrize("grad", [False, True])
def test_what_is_not_finite_is_named(grad):
    x = torch.full((11, 2), 0.1)
    x[10] = 4.0
    with torch.set_grad_enabled(grad), pytest.raises(GraphgenError, match=r"step 3, t = 0\.06, graphs 12:"):
        sdeint(explodes, 0.0, x.requires_grad_(grad), PTR, 0, 1, 50, graph_ids=IDS)


@pytest.mark.parametrize("grad", [False, True])
def test_what_is_not_finite_is_masked(grad):
    x = torch.full((11, 2), 0.1)
    x[10] = 4.0
    with torch.set_grad_enabled(grad):
        end = sdeint(explodes, 0.1, x, PTR, 0, 1, 50, on_nonfinite="mask", graph_ids=IDS)
    alone = sdeint(explodes, 0.1, x[:10], PTR[:4], 0, 1, 50, graph_ids=IDS[:3])
    assert torch.equal(end[:10], alone) and bool(end[10:].isnan().all())


@pytest.mark.parametrize("dtype", [torch.float32, WIDE, torch.bfloat16])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_step_notes_the_first_time_that_a_graph_breaks(dtype, value, symmetric):
    sizes = [9, 0, 2500, 1, 16]
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    x = randn(int(ptr[-1]), 3, seed=1, dtype=dtype)
    f = torch.zeros_like(x)
    step = PreparedStep(x, ptr, symmetric=symmetric)
    step(4, (x, f), (1.0, 0.1), 0.5)
    assert step.broken.tolist() == [-1] * 5
    for place in (int(ptr[3]) - 1, int(ptr[3])):
        broken = f.clone()
        broken[place, 2] = value
        step(5, (x, broken), (1.0, 0.1), 0.5, watched=False)
        step(6 + place % 2, (x, broken), (1.0, 0.1), 0.5 * (place % 2))
    step(9, (x, f * math.nan), (1.0, 0.1))
    second = 6 + (int(ptr[3]) - 1) % 2
    assert step.broken.tolist() == [9, -1, second, 13 - second, 9]


# ---- the rest -------------------------------------------------------------------------------------------------------


def test_a_million_steps_do_not_grow():
    import tracemalloc

    x = torch.zeros(1, 1)
    ptr = torch.tensor([0, 1])
    peaks = []
    for steps in (1_000, 10_000):
        tracemalloc.start()
        sdeint(lambda t, x: x, 0.1, x, ptr, 0, 1e-3, steps)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000, peaks


def test_methods_that_do_not_solve_an_equation_say_which_do():
    x = torch.ones(11, 2)
    for method, kind, sense, match in (
        ("srk", "general", "ito", "euler"),
        ("euler", "diagonal", "stratonovich", "heun or milstein"),
        ("heun", "diagonal", "ito", "euler or milstein or srk"),
        ("rk4", "diagonal", "ito", "euler, heun"),
        ("euler", "diag", "ito", "diagonal"),
    ):
        with pytest.raises(ValueError, match=match):
            sdeint(lambda t, x: x, 0.1, x, PTR, 0, 1, 3, method, noise=kind, sense=sense)
    for options, match in (
        (dict(gradient="none"), "adjoint"),
        (dict(on_nonfinite="ignore"), "mask"),
        (dict(first_step=-1), "first_step"),
    ):
        with pytest.raises(ValueError, match=match):
            sdeint(lambda t, x: x, 0.1, x, PTR, 0, 1, 3, **options)
    with pytest.raises(ValueError, match="one per graph"):
        sdeint(lambda t, x: x, 0.1, x, PTR, torch.zeros(3), 1, 3)
    with pytest.raises(ValueError, match="arrays of a step differ"):
        sdeint(lambda t, x: x[:, :1], 0.1, x, PTR, 0, 1, 3)


def test_steps_are_reported():
    seen = []
    sdeint(lambda t, x: x, 0.1, torch.ones(11, 2), PTR, 0, 1, 4, on_step=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]
