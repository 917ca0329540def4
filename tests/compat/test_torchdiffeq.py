"""torchdiffeq's interface on graphgen's steps: closed forms, and, where it is installed, torchdiffeq itself."""

import importlib.util
import math

import pytest
import torch
from torch import nn

from graphgen import GraphgenError
from graphgen.compat import torchdiffeq
from graphgen.compat.torchdiffeq import _original
from graphgen.compat.torchdiffeq._methods import ADAPTIVE, FIXED

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("torchdiffeq") is None, reason="torchdiffeq is not installed"
)
MATRIX = torch.tensor([[-0.1, 2.0], [-2.0, -0.3]], dtype=torch.float64)


class Turning(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.matrix = nn.Parameter(MATRIX.to(dtype))
        self.unused = nn.Parameter(torch.ones(2, dtype=dtype))
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return y @ self.matrix * (1 + 0.1 * torch.sin(t))


def exact(y, times):
    """The angle that time turns by is that of the integral of its factor."""
    turned = [t - times[0] + 0.1 * (math.cos(times[0]) - math.cos(t)) for t in times]
    return torch.stack([y @ torch.linalg.matrix_exp(MATRIX * by) for by in turned])


@pytest.fixture
def alone(monkeypatch):
    """As if torchdiffeq were not installed."""
    _original.original.cache_clear()
    monkeypatch.setattr(_original, "_installed", lambda: None)
    yield
    _original.original.cache_clear()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("method", [*ADAPTIVE, *FIXED, None])
def test_a_closed_form(alone, method, backwards):
    y = torch.tensor([[1.0, -0.5], [0.2, 0.4]], dtype=torch.float64)
    t = torch.linspace(0.2, 2.0, 7, dtype=torch.float64)
    t = t.flip(0) if backwards else t
    options = {"step_size": 1e-4 if method == "euler" else 5e-3} if method in FIXED else None
    # The original's interpolants of bosh3 and fehlberg2 are of low order.
    near = {"euler": 5e-3, "bosh3": 2e-3, "fehlberg2": 2e-3}.get(method, 1e-4)
    with torch.no_grad():
        found = torchdiffeq.odeint(Turning(), y, t, method=method, options=options, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, exact(y, t.tolist()), rtol=near, atol=near)
    assert torch.equal(found[0], y)


def test_tuples_scalars_and_one_time(alone):
    def f(t, y):
        return -y[0], y[1] * 0 + 2 * t

    y = torch.randn(2, 3, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    t = torch.tensor([0.0, 0.5, 1.0])
    a, b = torchdiffeq.odeint(f, y, t)
    torch.testing.assert_close(a, torch.stack([y[0] * math.exp(-x) for x in t.tolist()]))
    torch.testing.assert_close(b, 1 + t.double() ** 2)
    (one,) = torchdiffeq.odeint(lambda t, y: y, (y[0],), t[:1])
    assert torch.equal(one[0], y[0])


def test_a_field_may_keep_what_it_is_given(alone):
    kept = []

    def f(t, y):
        kept.append((t, y))
        return y

    torchdiffeq.odeint(f, torch.ones(2), torch.tensor([0.0, 1.0]))
    values = [(float(t), y.tolist()) for t, y in kept]
    fresh = []
    torchdiffeq.odeint(lambda t, y: fresh.append((float(t), y.tolist())) or y, torch.ones(2), torch.tensor([0.0, 1.0]))
    assert fresh == values


@pytest.mark.parametrize("method", ["dopri5", "rk4", "midpoint"])
def test_gradcheck(alone, method):
    field = Turning()
    t = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    y = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def solve(y, matrix):
        return torchdiffeq.odeint(lambda t, x: torch.tanh(x @ matrix), y, t, method=method, rtol=1e-9, atol=1e-9)

    assert torch.autograd.gradcheck(solve, (y, field.matrix), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tupled", [False, True])
@pytest.mark.parametrize("options", [None, {"norm": "seminorm"}])
def test_the_adjoint_agrees_with_the_way_through(alone, tupled, options):
    t = torch.tensor([1.5, 0.9, 0.1], dtype=torch.float64)
    y, field = torch.randn(3, 2, dtype=torch.float64, requires_grad=True), Turning()
    weight = torch.randn(3, 3, 2, dtype=torch.float64)

    def loss(odeint, **more):
        if not tupled:
            return (odeint(field, y, t, rtol=1e-9, atol=1e-9, **more) * weight).sum()
        pair = odeint(lambda t, s: (field(t, s[0]), s[1].cos() * t), (y, y[0] * 2), t, rtol=1e-9, atol=1e-9, **more)
        return (pair[0] * weight).sum() + pair[1].square().sum()

    wanted = (y, field.matrix)
    through = torch.autograd.grad(loss(torchdiffeq.odeint), wanted)
    parameters = tuple(field.parameters())
    adjoint = torch.autograd.grad(
        loss(torchdiffeq.odeint_adjoint, adjoint_params=parameters, adjoint_options=options), wanted
    )
    for one, other in zip(through, adjoint, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_adjoint_by_time(alone):
    t = torch.tensor([0.0, 0.4, 1.1], dtype=torch.float64, requires_grad=True)
    y, field = torch.randn(2, dtype=torch.float64), Turning()
    weight = torch.randn(3, 2, dtype=torch.float64)
    found = torchdiffeq.odeint_adjoint(field, y, t, rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad((found * weight).sum(), t)
    numeric, e = [], 1e-5
    for k in range(3):
        ends = []
        for sign in (1, -1):
            moved = t.detach().clone()
            moved[k] += sign * e
            ends.append((torchdiffeq.odeint(field, y, moved, rtol=1e-12, atol=1e-12).detach() * weight).sum())
        numeric.append((ends[0] - ends[1]) / (2 * e))
    torch.testing.assert_close(gradient, torch.stack(numeric), rtol=1e-5, atol=1e-6)


def test_what_fails_says_so(alone):
    t = torch.tensor([0.0, 1.0])
    with pytest.raises(AssertionError, match="underflow"):
        torchdiffeq.odeint(lambda t, y: y * torch.nan, torch.ones(2), t)
    with pytest.raises(AssertionError, match="max_num_steps"):
        torchdiffeq.odeint(lambda t, y: y, torch.ones(2), t, method="dopri5", options={"max_num_steps": 1})
    with pytest.raises(ValueError, match="adjoint_params"):
        torchdiffeq.odeint_adjoint(lambda t, y: y, torch.ones(2), t)
    for options in ({"method": "dopri8"}, {"event_fn": lambda t, y: y.sum()}):
        with pytest.raises(GraphgenError, match="pip install torchdiffeq"):
            torchdiffeq.odeint(lambda t, y: y, torch.ones(2), t, **options)


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", [*ADAPTIVE, *FIXED])
def test_steps_and_states_are_those_of_the_original(method, dtype):
    t = torch.linspace(0, 1.5, 6, dtype=dtype)
    y = torch.tensor([[1.0, -0.5], [0.2, 0.4]], dtype=dtype)
    options = {"rtol": 1e-4, "atol": 1e-5}
    if method in FIXED:
        options["options"] = {"step_size": 0.04}
    ours, theirs = Turning(dtype), Turning(dtype)
    with torch.no_grad():
        found = torchdiffeq.odeint(ours, y, t, method=method, **options)
        wanted = _original.original().odeint(theirs, y, t, method=method, **options)
    near = 1e-11 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(found, wanted, rtol=near, atol=near)
    if method in ADAPTIVE or method in ("euler", "midpoint", "rk4"):
        assert ours.calls == theirs.calls


@needs_library
def test_what_the_original_answers():
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    y = torch.tensor([1.0 + 1.0j], dtype=torch.complex64)
    found = torchdiffeq.odeint(lambda t, y: 1j * y, y, t.float())
    torch.testing.assert_close(found[1], y * torch.exp(torch.tensor(1j)), rtol=1e-4, atol=1e-4)
    seen = []

    class Called(nn.Module):
        def forward(self, t, y):
            return -y

        def callback_step(self, t, y, dt):
            seen.append(float(t))

    torchdiffeq.odeint(Called(), torch.ones(1), t.float())
    assert seen
    zero = torch.tensor(0.0, dtype=torch.float64)
    when, states = torchdiffeq.odeint_event(
        lambda t, y: torch.ones_like(y), torch.zeros(1, dtype=torch.float64), zero, event_fn=lambda t, y: y.sum() - 0.7
    )
    assert abs(float(when) - 0.7) < 1e-6 and abs(float(states[-1]) - 0.7) < 1e-6
    dense = torchdiffeq.odeint_dense(lambda t, y: -y, torch.ones(1, dtype=torch.float64), *t)
    assert abs(float(dense(torch.tensor(0.3, dtype=torch.float64))) - math.exp(-0.3)) < 1e-6


def test_install_answers_to_the_name(run_python):
    done = run_python(
        """
from graphgen import compat
library = compat.install("torchdiffeq")
import torch, torchdiffeq
from torchdiffeq import odeint, odeint_adjoint, odeint_dense, odeint_event
assert torchdiffeq is library and torchdiffeq.odeint.__module__.startswith("graphgen.compat.torchdiffeq")
assert torchdiffeq.__version__.startswith("0.2.5")
assert odeint(lambda t, y: y, torch.ones(1), torch.tensor([0.0, 1.0])).shape == (2, 1)
compat.uninstall("torchdiffeq")
import sys
assert not any(name.split(".")[0] == "torchdiffeq" for name in sys.modules)
"""
    )
    assert done.returncode == 0, done.stderr
