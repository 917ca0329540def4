"""The torchsde drop-in: by itself, and beside torchsde on the same noise where that is installed."""

import math
import warnings

import pytest
import torch
from torch import nn

from graphgen import GraphgenError, ops
from graphgen.compat import torchsde
from graphgen.compat.torchsde import _methods, _solve
from graphgen.compat.torchsde._original import original
from graphgen.ops.noise import Stream

BATCH, SIZE, NOISES = 4, 9, 3
ITO, STRATONOVICH = ("euler", "milstein", "srk"), ("midpoint", "heun", "euler_heun", "milstein", "log_ode")
METHODS = [*(("ito", m) for m in ITO), *(("stratonovich", m) for m in (*STRATONOVICH, "reversible_heun"))]


@pytest.fixture(scope="module")
def library():
    try:
        return original("the comparison")
    except ImportError as error:
        pytest.skip(f"torchsde is not installed ({error})")


class Net(nn.Module):
    """A smooth SDE of any kind of noise, with parameters."""

    def __init__(self, noise_type, sde_type, dtype=torch.float64):
        super().__init__()
        self.noise_type, self.sde_type = noise_type, sde_type
        generator = torch.Generator().manual_seed(3)
        self.a = nn.Parameter(torch.rand(SIZE, generator=generator, dtype=torch.float64).to(dtype))
        self.b = nn.Parameter(torch.rand(SIZE, noises(noise_type), generator=generator, dtype=torch.float64).to(dtype))

    def f(self, t, y):
        return torch.sin(self.a * y) - 0.3 * y * (1 + t)

    def h(self, t, y):
        return -0.1 * y

    def g(self, t, y):
        if self.noise_type == "diagonal":
            return 0.5 + 0.3 * torch.cos(self.a * y + t)
        if self.noise_type == "additive":
            return (self.b * (1 + t)).expand(y.shape[0], -1, -1)
        return 0.4 * torch.sigmoid(y + t).unsqueeze(-1) * self.b


class Geometric:
    """dy = mu y dt + sigma y dW."""

    noise_type = "diagonal"

    def __init__(self, mu, sigma, sde_type="ito"):
        self.mu, self.sigma, self.sde_type = mu, sigma, sde_type

    def f(self, t, y):
        return self.mu * y

    def g(self, t, y):
        return self.sigma * y


def noises(noise_type, state=SIZE):
    return {"diagonal": state, "scalar": 1}.get(noise_type, NOISES)


def start(dtype=torch.float64):
    return torch.linspace(-1, 1, BATCH * SIZE, dtype=dtype).view(BATCH, SIZE)


def motion(noise_type, area="foster", state=SIZE, **options):
    return torchsde.BrownianInterval(
        0.0,
        1.0,
        size=(BATCH, noises(noise_type, state)),
        dtype=torch.float64,
        entropy=5,
        levy_area_approximation=area,
        **options,
    )


# Methods that need noise to commute are not for general noise; reversible steps are not undone.
SOLVES = [
    (noise_type, sde_type, method, adaptive)
    for noise_type in ("diagonal", "scalar", "additive", "general")
    for sde_type, method in METHODS
    for adaptive in (False, True)
    if not (noise_type == "general" and method in ("milstein", "srk"))
    and not (adaptive and method == "reversible_heun")
]


# ---- beside torchsde, on the same noise -----------------------------------------------------------------------------


@pytest.mark.parametrize(("noise_type", "sde_type", "method", "adaptive"), SOLVES)
def test_a_solve_is_that_of_torchsde(library, noise_type, sde_type, method, adaptive):
    sde, ts = Net(noise_type, sde_type), torch.tensor([0.0, 0.13, 0.5, 1.0], dtype=torch.float64)
    options = [None, {"grad_free": True}] if method == "milstein" else [None]
    for option in options:
        solve = dict(method=method, dt=0.05, adaptive=adaptive, options=option, rtol=1e-2, atol=1e-2)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = torchsde.sdeint(sde, start(), ts, bm=motion(noise_type), **solve)
            theirs = library.sdeint(sde, start(), ts, bm=motion(noise_type, dt=0.05), **solve)
            if adaptive:  # whose first step is a guess and no cell
                theirs = library.sdeint(sde, start(), ts, bm=motion(noise_type), **solve)
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("noise_type", ["diagonal", "general"])
def test_log_ratios_are_those_of_torchsde(library, noise_type):
    sde, ts = Net(noise_type, "ito"), [0.0, 0.25, 1.0]
    state = SIZE + 1 if noise_type == "diagonal" else SIZE
    for extra in (False, True):
        solve = dict(method="euler", dt=0.05, logqp=True, extra=extra)
        ours = torchsde.sdeint(sde, start(), ts, bm=motion(noise_type, state=state, dt=0.05), **solve)
        theirs = library.sdeint(sde, start(), ts, bm=motion(noise_type, state=state, dt=0.05), **solve)
        assert len(ours) == len(theirs) == 2 + extra
        assert all(torch.allclose(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True))


@pytest.mark.parametrize(
    ("noise_type", "sde_type", "method"),
    [
        ("diagonal", "ito", "euler"),
        ("diagonal", "ito", "milstein"),
        ("scalar", "ito", "srk"),
        ("general", "stratonovich", "midpoint"),
        ("general", "stratonovich", "log_ode"),
    ],
)
def test_gradients_through_a_solve_are_those_of_torchsde(library, noise_type, sde_type, method):
    def gradients(package):
        sde, y = Net(noise_type, sde_type), start().requires_grad_()
        bm = motion(noise_type, dt=0.1)
        ys = package.sdeint(sde, y, [0.0, 0.5, 1.0], bm=bm, method=method, dt=0.1)
        return torch.autograd.grad(ys.square().sum(), [y, *sde.parameters()], allow_unused=True)

    for ours, theirs in zip(gradients(torchsde), gradients(library), strict=True):
        assert (ours is None and theirs is None) or torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_the_adjoint_gives_the_gradient_of_the_solve(library):
    def gradients(solve, **options):
        sde, y = Net("diagonal", "stratonovich"), start().requires_grad_()
        ys = solve(sde, y, [0.0, 1.0], bm=motion("diagonal", dt=0.01), method="reversible_heun", dt=0.01, **options)
        return torch.autograd.grad(ys[-1].square().sum(), [y, sde.a])

    exact = gradients(torchsde.sdeint)
    found = gradients(torchsde.sdeint_adjoint, adjoint_method="adjoint_reversible_heun")
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in zip(exact, found, strict=True))
    ys = torchsde.sdeint_adjoint(Net("diagonal", "ito", torch.float32), start(torch.float32), [0.0, 0.1], dt=0.01)
    assert ys.shape == (2, BATCH, SIZE) and ys.requires_grad


def test_the_adjoint_names_the_step_too(library):
    class Bad(Net):
        def f(self, t, y):
            return torch.full_like(y, torch.nan) if t > 0.55 else -y

    with pytest.raises(GraphgenError, match="after step 7"):
        torchsde.sdeint_adjoint(Bad("diagonal", "ito"), start(), [0.0, 1.0], method="milstein", dt=0.1)


# ---- by itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_fused_step_adds_the_increment_of_its_motion(dtype):
    sde, y = Net("diagonal", "ito", dtype), start(dtype)
    with torch.no_grad():
        bm = torchsde.BrownianInterval(0.0, 1.0, size=y.shape, dtype=dtype, entropy=8)
        ys = torchsde.sdeint(sde, y, [0.0, 1.0], bm=bm, method="euler", dt=0.125)
        for k in range(8):
            t = torch.tensor(k / 8, dtype=dtype)
            y = y + sde.f(t, y) / 8 + sde.g(t, y) * bm(k / 8, (k + 1) / 8)
    assert torch.allclose(ys[1].double(), y.double(), atol={torch.bfloat16: 0.1, torch.float32: 1e-5}.get(dtype, 1e-12))


@pytest.mark.parametrize("span", [1.0, 10.0])
def test_a_step_costs_the_same_over_any_span(span, monkeypatch):
    """100 steps are 99 fused ones and the last, which ends where ts does: torchsde's issue 109."""
    taken, asked = [], []
    step, increment = _methods.FusedSteps.__call__, torchsde._brownian.increment
    monkeypatch.setattr(_methods.FusedSteps, "__call__", lambda *args: taken.append(1) or step(*args))
    monkeypatch.setattr(torchsde._brownian, "increment", lambda *args: asked.append(args[4:6]) or increment(*args))
    torchsde.sdeint(Geometric(-0.1, 0.2), torch.ones(4, 9), torch.tensor([0.0, span]), dt=span / 100, method="euler")
    assert len(taken) == 99 and len(asked) == 1


@pytest.mark.parametrize(
    ("sde_type", "method", "order"),
    [
        ("ito", "euler", 0.5),
        ("ito", "milstein", 1.0),
        ("ito", "srk", 1.5),
        ("stratonovich", "heun", 1.0),
        ("stratonovich", "midpoint", 1.0),
    ],
)
def test_strong_order(sde_type, method, order):
    """On geometric Brownian motion, whose paths are known, against one path at several steps."""
    mu, sigma, count = 0.3, 0.8, 400
    y0 = torch.ones(count, 10, dtype=torch.float64)
    area = "space-time"
    errors = []
    for steps in (16, 64):
        bm = torchsde.BrownianInterval(
            0.0, 1.0, size=y0.shape, dtype=torch.float64, entropy=2, dt=1 / 64, levy_area_approximation=area
        )
        exact = (mu - (0.5 * sigma**2 if sde_type == "ito" else 0.0) + sigma * bm(0.0, 1.0)).exp()
        with torch.no_grad():
            found = torchsde.sdeint(Geometric(mu, sigma, sde_type), y0, [0.0, 1.0], bm=bm, method=method, dt=1 / steps)
        errors.append(float((found[-1] - exact).square().mean().sqrt()))
    assert abs(math.log(errors[0] / errors[1]) / math.log(4) - order) < 0.2


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("method", ["euler", "milstein", "srk"])
def test_nan_raises_and_names_step_and_time(method, adaptive):
    class Bad(Net):
        def f(self, t, y):
            return torch.full_like(y, torch.nan) if t > 0.55 else -y

    says = "step" if adaptive else "after step (7|6), from time 0.[56] to"
    with torch.no_grad(), warnings.catch_warnings(), pytest.raises(GraphgenError, match=says):
        warnings.simplefilter("ignore")
        torchsde.sdeint(Bad("diagonal", "ito"), start(), [0.0, 1.0], method=method, dt=0.1, adaptive=adaptive)
    with pytest.raises(GraphgenError, match="y0 at time 0 is not finite"):
        torchsde.sdeint(Net("diagonal", "ito"), start() / 0, [0.0, 1.0], method=method, dt=0.1)


def test_a_late_nan_is_found_from_the_last_look():
    class Late(Geometric):
        calls = 0

        def f(self, t, y):
            Late.calls += 1
            return torch.full_like(y, torch.inf) if t > 1.9985 else -y

    with pytest.raises(GraphgenError, match="after step 201"):
        torchsde.sdeint(Late(0, 0.1), torch.ones(2, 9), [0.0, 2.5, 3.0], method="euler", dt=0.01)
    assert Late.calls <= 300 + 1 + _solve._CHECKED_EVERY


def test_outputs_between_steps_are_interpolated():
    class Still(Geometric):
        def f(self, t, y):
            return torch.ones_like(y)

    ys = torchsde.sdeint(Still(0, 0.0), torch.zeros(1, 9), [0.0, 0.15, 0.2, 0.37, 0.4], method="euler", dt=0.1)
    assert torch.allclose(ys[:, 0, 0], torch.tensor([0.0, 0.15, 0.2, 0.37, 0.4]))


@pytest.mark.parametrize("how", ["interval", "dt", "tree", "given"])
def test_a_motion_is_a_function(how):
    given = dict(W=torch.ones(5, 2, dtype=torch.float64), H=torch.full((5, 2), 0.1, dtype=torch.float64))
    options = {"interval": {}, "dt": dict(dt=0.1), "tree": dict(halfway_tree=True, tol=1e-8), "given": given}[how]

    def make():
        return torchsde.BrownianInterval(
            0.0, 1.0, size=(5, 2), dtype=torch.float64, entropy=3, levy_area_approximation="foster", **options
        )

    bm, again = make(), make()
    times = [(0.1, 0.3), (0.0, 1.0), (0.25, 0.7), (0.3, 0.31), (0.1, 0.1)]
    first = {pair: bm(*pair, return_U=True, return_A=True) for pair in times}
    for pair in reversed(times):
        for other in (again, bm):
            found = other(*pair, return_U=True, return_A=True)
            assert all(torch.equal(a, b) for a, b in zip(found, first[pair], strict=True))
    assert first[0.1, 0.3][2].shape == (5, 2, 2)
    w1, u1 = bm(0.2, 0.45, return_U=True)
    w2, u2 = bm(0.45, 0.9, return_U=True)
    w, u = bm(0.2, 0.9, return_U=True)
    assert torch.allclose(w1 + w2, w, atol=1e-12) and torch.allclose(u1 + 0.45 * w1 + u2, u, atol=1e-12)
    if how == "given":
        w, u = bm(0.0, 1.0, return_U=True)
        assert torch.allclose(w, given["W"]) and torch.allclose(u - w / 2, given["H"])


def test_paths_trees_and_reversed_motions():
    w0, w1 = torch.zeros(200_000), torch.full((200_000,), 2.0)
    tree = torchsde.BrownianTree(0.0, w0, t1=4.0, w1=w1, entropy=1)
    assert torch.allclose(tree(4.0), w1, atol=1e-5) and torch.equal(tree(0.0), w0)
    middle = tree(1.0)
    assert abs(float(middle.mean()) - 0.5) < 0.01 and abs(float(middle.var()) - 0.75) < 0.01
    path = torchsde.BrownianPath(1.0, torch.full((3, 2), 5.0))
    assert torch.allclose(path(1.3) - path(1.1), path(1.1, 1.3), atol=1e-6)
    backwards = torchsde.ReverseBrownian(path)
    assert torch.equal(backwards(-1.3, -1.1), path(1.1, 1.3)) and backwards.shape == (3, 2)
    like = torchsde.brownian_interval_like(torch.ones(2, 3, dtype=torch.float64), t1=2.0, entropy=4)
    assert like.size() == (2, 3) and like.dtype is torch.float64 and like.entropy == 4 and "t1=2.000" in repr(like)
    with pytest.warns(UserWarning, match="outside"):
        like(0.0, 3.0)
    with pytest.raises(RuntimeError, match="after"):
        like(1.0, 0.5)


def test_a_motion_shares_its_noise_with_the_steps_of_ops():
    bm = torchsde.BrownianInterval(0.0, 1.0, size=(4, 9), entropy=6, dt=0.25)
    drawn = ops.normal(torch.arange(5), 9, 6, Stream.BROWNIAN, step=2)
    assert torch.equal(bm(0.5, 0.75), 0.5 * drawn)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(y0=torch.ones(3)), "y0"),
        (dict(y0=[1.0]), "y0"),
        (dict(ts=[0.0, 0.0]), "ts"),
        (dict(ts="01"), "ts"),
        (dict(method="blah"), "method"),
        (dict(method="midpoint"), "stratonovich"),
        (dict(method="adjoint_reversible_heun"), "adjoint"),
        (dict(method="srk", bm=("diagonal", "none")), "levy_area_approximation"),
        (dict(bm=("scalar", "none")), "noise sizes"),
        (dict(dt=torch.tensor(0.1, requires_grad=True)), "dt"),
        (dict(sde=nn.Identity()), "noise_type"),
    ],
)
def test_what_is_refused(change, says):
    call = dict(sde=Net("diagonal", "ito"), y0=start(), ts=[0.0, 0.1], method="euler", dt=0.1) | change
    if "bm" in call:
        call["bm"] = motion(*call["bm"])
    with pytest.raises(ValueError, match=says):
        torchsde.sdeint(**call)


def test_warnings():
    with pytest.warns(UserWarning, match="mean nothing"):
        torchsde.sdeint(Net("diagonal", "ito"), start(), [0.0, 0.1], method="euler", dt=0.1, colour="red")
    with pytest.warns(UserWarning, match="additive noise only"):
        torchsde.sdeint(Net("diagonal", "ito"), start(), [0.0, 0.1], method="euler", dt=0.1, adaptive=True)
    for wrong in (dict(t0=2.0), dict(tol=-1.0), dict(halfway_tree=True), dict(levy_area_approximation="x")):
        with pytest.raises(ValueError):
            torchsde.BrownianInterval(**{"t0": 0.0, "t1": 1.0, "size": (2,), **wrong})


def test_a_float32_solve_over_many_steps_stays_on_its_cells():
    ys = torchsde.sdeint(Geometric(-0.1, 0.2), torch.ones(8, 9), torch.tensor([0.0, 0.3]), dt=1e-4, method="euler")
    assert bool(ys.isfinite().all())


# ---- its name -------------------------------------------------------------------------------------------------------


def test_install_answers_to_every_name(run_python):
    done = run_python(
        """
from graphgen import compat
library = compat.install("torchsde")
import torchsde, torchsde.settings, torchsde.types
from torchsde import BaseSDE, SDEIto, SDEStratonovich, BrownianInterval, sdeint, sdeint_adjoint
from torchsde.settings import LEVY_AREA_APPROXIMATIONS, METHODS, METHOD_OPTIONS, NOISE_TYPES, SDE_TYPES
from torchsde.types import Callable, ModuleOrModules, Optional, TensorOrTensors
assert torchsde is library and sdeint.__module__.startswith("graphgen.compat.torchsde")
assert "euler" in METHODS and "blah" not in METHODS and NOISE_TYPES.all() == sorted(NOISE_TYPES.all())
assert SDEIto("diagonal").sde_type == "ito" and torchsde.__version__.startswith("0.2.6+graphgen")
compat.uninstall("torchsde")
"""
    )
    assert done.returncode == 0, done.stderr
