import math
import resource
import sys
import tracemalloc

import pytest
import torch
from torch import nn

from graphgen import GraphBatch, GraphgenError, ops
from graphgen.ops.reference.attempts import Attempts as ReferenceAttempts
from graphgen.ops.stepping import METHODS, TABLEAUS
from graphgen.ops.stepping.attempts import Attempts, Point, Rules
from graphgen.solvers import odeint

MATRIX = torch.tensor([[0.3, -1.2, 0.1], [0.8, -0.4, 0.5], [-0.2, 0.6, 0.7]], dtype=torch.float64)


def graphs(*sizes):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return GraphBatch.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), sum(sizes), ptr=ptr)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_linear_field_has_its_closed_form_solution_and_density(method):
    graph = graphs(2, 0, 3)
    x = torch.randn(5, 3, dtype=torch.float64)
    matrix = MATRIX

    def f(t, state):
        value, trace, _ = ops.divergence(lambda at: ops.linear(at, matrix), state[0], graph, "exact")
        return value, trace

    end, change = odeint(
        f, (x, x.new_zeros(3)), graph, 0.0, 1.0, method, steps=50 if method == "rk4" else None, rtol=1e-9, atol=1e-9
    )
    assert torch.allclose(end, x @ torch.linalg.matrix_exp(matrix), atol=1e-6)
    # log p(x(1)) = log p(x(0)) - nodes * trace: the density of the linear image of a normal.
    assert torch.allclose(change, torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64) * matrix.trace(), atol=1e-5)
    covariance = torch.linalg.matrix_exp(matrix).t() @ torch.linalg.matrix_exp(matrix)
    closed = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(end)
    standard = -0.5 * (x * x).sum(1) - 1.5 * math.log(2 * math.pi)
    for g, nodes in enumerate([slice(0, 2), slice(2, 2), slice(2, 5)]):
        assert abs(float(closed[nodes].sum() - (standard[nodes].sum() - change[g]))) < 1e-5


def pendulum(t, state):
    x = state[0]
    return (torch.stack([x[:, 1], -torch.sin(x[:, 0]) * 4], 1),)


START = torch.tensor([[1.0, 0.5]], dtype=torch.float64)


def pendulum_at(*times):
    """As exact as float64 gets."""
    return odeint(pendulum, (START,), graphs(1), 0, 2, "tsit5", rtol=1e-13, atol=1e-13, times=times)[0]


def driven(t, x):
    return torch.stack([x[:, 1], -torch.sin(x[:, 0]) * 4 + torch.cos(3 * t)], 1)


@pytest.mark.parametrize("method", METHODS)
def test_methods_and_their_interpolants_are_of_their_order(method):
    one = torch.linspace(-2, 2.5, 8, dtype=torch.float64)
    start, graph, times = (
        torch.stack([one, one.flip(0) * 0.7 + 0.3], 1),
        graphs(8),
        torch.linspace(0, 2, 98)[1:].tolist(),
    )
    exact = odeint(driven, start, graph, 0, times[-1], "tsit5", rtol=1e-13, atol=1e-13, times=times)
    order, errors = METHODS[method].order, []
    steps = {1: 80, 2: 80, 3: 60, 4: 40, 5: 60}[order]
    for count in (steps, 2 * steps):
        found = odeint(driven, start, graph, 0, times[-1], method, steps=count, times=times)
        errors.append((found - exact).flatten(1).norm(dim=1))
        assert torch.equal(odeint(driven, start, graph, 0, times[-1], method, steps=count), found[-1])
    assert abs(math.log2(errors[0][-1] / errors[1][-1]) - order) < 0.2
    assert abs(math.log2(errors[0].max() / errors[1].max()) - order) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_the_polynomials_of_an_interpolant_meet_the_order_conditions(method):
    tableau = METHODS[method]
    a = torch.zeros(len(tableau.b), len(tableau.b), dtype=torch.float64)
    for k, row in enumerate(tableau.a):
        a[k, : len(row)] = torch.tensor(row, dtype=torch.float64)
    c = torch.tensor(tableau.c, dtype=torch.float64)
    # A step's interpolant may be one order less than the method: its error does not add up.
    order = max(tableau.order - 1, 1)
    trees = [(1, torch.ones_like(c), 1), (2, c, 2), (3, c * c, 3), (3, a @ c, 6), (4, c**3, 4), (4, c * (a @ c), 8)]
    trees += [(4, a @ (c * c), 12), (4, a @ (a @ c), 24)]
    for theta in (0.2, 0.7, 1.0):
        weights = torch.tensor(
            [sum(x * theta ** (n + 1) for n, x in enumerate(row)) for row in tableau.dense], dtype=torch.float64
        )
        for size, tree, density in trees:
            if size <= order:
                assert abs(float(weights @ tree) - theta**size / density) < 1e-13
    exact = torch.tensor([sum(row) for row in tableau.dense], dtype=torch.float64)
    assert torch.allclose(exact, torch.tensor(tableau.b, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("method", TABLEAUS)
def test_adaptive_steps_keep_their_tolerance_at_all_times(method):
    times = torch.linspace(0, 2, 23).tolist()
    exact = pendulum_at(*times)
    tolerance = 1e-5 if method == "heun" else 1e-7
    found = odeint(pendulum, (START,), graphs(1), 0, 2, method, rtol=tolerance, atol=tolerance, times=times)[0]
    assert torch.equal(found[0], START)
    errors = (found - exact).abs().amax((1, 2))
    assert float(errors.max()) < 50 * tolerance and float(errors.max()) > 1e-3 * tolerance
    back = odeint(pendulum, (found[-1],), graphs(1), 2, 0, method, rtol=tolerance, atol=tolerance, times=times[::-1])[0]
    assert float((back.flip(0) - exact).abs().max()) < 200 * tolerance


def test_dopri5_keeps_its_tolerance_and_goes_backwards():
    graph = graphs(2)
    start = torch.tensor([[1.0, 0.5], [2.9, 0.0]], dtype=torch.float64)
    there = odeint(pendulum, (start,), graph, 0, 2, "dopri5", rtol=1e-10, atol=1e-10)[0]
    exact = odeint(pendulum, (start,), graph, 0, 2, "rk4", steps=4000)[0]
    assert float((there - exact).abs().max()) < 1e-8
    back = odeint(pendulum, (there,), graph, 2, 0, "dopri5", rtol=1e-10, atol=1e-10)[0]
    assert float((back - start).abs().max()) < 1e-8


SIZES = (3, 1, 0, 7, 4, 8)


def stiff_for_some(t, state):
    x, n = state
    here = ops.activation(x * 3, "tanh") - x * x * x
    return here, t * n - n * n * n


def uneven():
    return torch.randn(23, 5) * torch.logspace(-1, 0.7, 23).unsqueeze(1), torch.linspace(-1, 2, 6)


@pytest.mark.parametrize("method", METHODS)
def test_a_graph_does_not_depend_on_its_batch_mates(method):
    x, n = uneven()
    options = {"times": (0.0, 0.3, 0.31, 0.9), "method": method}
    if method not in TABLEAUS:
        x, options["steps"] = x / 5, 40
    together = odeint(stiff_for_some, (x, n), graphs(*SIZES), 0, 1, **options)
    first = 0
    for g, size in enumerate(SIZES):
        nodes = slice(first, first + size)
        alone = odeint(stiff_for_some, (x[nodes], n[g : g + 1]), graphs(size), 0, 1, **options)
        assert torch.equal(alone[0], together[0][:, nodes]) and torch.equal(alone[1], together[1][:, g : g + 1])
        first += size


def test_threads_and_runs_change_no_bit():
    x, n = uneven()
    before, threads = odeint(stiff_for_some, (x, n), graphs(*SIZES), 0, 1), torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            again = odeint(stiff_for_some, (x, n), graphs(*SIZES), 0, 1)
        finally:
            torch.set_num_threads(threads)
        assert all(map(torch.equal, before, again))


# ---- what decides on steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("equal_steps", [0, 5])
def test_attempts_are_those_of_their_twin(dtype, equal_steps):
    torch.manual_seed(1)  # now and then two slopes all but cancel, and bfloat16 says little of such an error
    ptr, alone = torch.tensor([0, 2, 2, 5]), torch.arange(4)
    rules = Rules(1.0, 2.0, True, 1e-3, 1e-2, equal_steps, smallest=1e-2)
    y = [torch.randn(5, 3).to(dtype), torch.randn(3, 1).to(dtype)]
    twins = [kind(TABLEAUS["bosh3"], [(y[0], ptr), (y[1], alone)], rules) for kind in (Attempts, ReferenceAttempts)]
    rest = ("done", "length", "h", "time", "accepted", "failed_at", "counts")

    def point(parts):
        return Point(parts, tuple(part.data_ptr() for part in parts), None)

    state = point(y)
    for twin in twins:
        twin.length.fill_(0.3)
        twin.control(0, tried=False)
    seen = 0
    for step in range(12):
        slopes = [[torch.randn_like(part) * (0.2 if step % 3 else 60.0) for part in y] for _ in range(4)]
        if step == (3 if equal_steps else 8):
            slopes[2][0][4] = torch.inf
        ends = []
        for twin in twins:
            end = [torch.empty_like(part) for part in y]
            for i in (1, 2, 3):
                twin.stage(i, state, slopes[i - 1], point(end))
            ends.append(end)
            twin.finish(state, slopes[3], None)
            twin.control(step)
        near = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
        for one, other in zip(*ends, strict=True):
            torch.testing.assert_close(one, other, rtol=near, atol=near, equal_nan=True)
        for name in rest:
            one, other = (getattr(twin, name) for twin in twins)
            # The engine finds the ratio of two steps to a thousandth of its range.
            torch.testing.assert_close(one, other, rtol=0.03, atol=1e-6)
            other.copy_(one)
        seen += int(twins[0].accepted.sum())
    assert 0 < seen < 36 and (twins[0].failed_at >= 0).any()


def test_a_solve_without_the_engine(monkeypatch):
    x, n = uneven()
    options = {"rtol": 1e-8, "atol": 1e-8, "times": (0.2, 1.0)}
    with_it = odeint(stiff_for_some, (x.double(), n.double()), graphs(*SIZES), 0, 1, **options)
    monkeypatch.setattr(sys.modules[odeint.__module__], "begin", ReferenceAttempts)
    without = odeint(stiff_for_some, (x.double(), n.double()), graphs(*SIZES), 0, 1, **options)
    for one, other in zip(with_it, without, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_no_steps_and_no_graphs():
    x = torch.randn(3, 2)
    assert torch.equal(odeint(lambda t, y: y, x, graphs(3), 1.0, 1.0), x)
    assert odeint(lambda t, y: y, x, graphs(3), 1.0, 1.0, times=[1.0, 1.0]).shape == (2, 3, 2)
    assert odeint(lambda t, y: y, x[:0], graphs(), 0, 1).shape == (0, 2)
    assert odeint(lambda t, y: y, x[:0], graphs(0, 0), 0, 1).shape == (0, 2)


def test_a_field_that_gives_back_its_argument():
    x = torch.randn(4, 2, dtype=torch.float64)
    for method in METHODS:
        steps = {"euler": 20_000, "midpoint": 2000}.get(method)
        found = odeint(lambda t, y: y, x, graphs(1, 3), 0, 1, method, steps=steps, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found, x * math.e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_a_long_solve_grows_by_nothing(method):
    x, graph = torch.randn(4, 3, dtype=torch.float64), graphs(1, 3)

    def turn(t, y):
        return torch.stack([-y[:, 1], y[:, 0], y[:, 2] * 0], 1)

    def grown(steps):
        tracemalloc.start()
        with torch.no_grad():
            span = 0.1 * steps
            odeint(turn, x, graph, 0, span, method, rtol=1e-4, atol=1e-4, steps=None if method == "dopri5" else steps)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    grown(50)
    short, before = grown(100), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    long = grown(4000)
    assert long < short + 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4_000


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dopri5", "heun"])
@pytest.mark.parametrize("gradient", ["through", "checkpoint"])
def test_gradient_through_adaptive_steps(method, gradient):
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    speed = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    tolerance = 1e-11 if method == "dopri5" else 1e-6

    def solve(x, speed):
        n = x.new_ones(2)
        return odeint(
            lambda t, s: (torch.sin(s[0]) * speed, s[1] * speed),
            (x, n),
            graphs(1, 2),
            0,
            0.5,
            method,
            rtol=tolerance,
            atol=tolerance,
            gradient=gradient,
            times=(0.2, 0.5),
        )

    assert torch.autograd.gradcheck(solve, (x, speed), rtol=1e-3, atol=1e-5)


def test_a_checkpointed_solve_remembers_states_only():
    x, weight = torch.randn(8, 3), torch.randn(3, 200, requires_grad=True)

    def field(t, y):
        return torch.tanh(y @ weight) @ weight.t() * 0.01

    results = {}
    for gradient in ("through", "checkpoint"):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            end = odeint(field, x, graphs(5, 3), 0, 1, "rk4", steps=9, gradient=gradient)
        wide = [t for t in kept if t.shape == (8, 200)]
        results[gradient] = (end, *torch.autograd.grad(end.square().sum(), weight), len(wide))
    # The very first slope is asked for before it is known whether there is a gradient.
    assert results["through"][2] >= 36 and results["checkpoint"][2] <= 2
    assert torch.equal(results["through"][0], results["checkpoint"][0])
    torch.testing.assert_close(results["through"][1], results["checkpoint"][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", ["through", "checkpoint", "adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "rk4"])
def test_gradients_of_a_linear_field_are_exact(gradient, method):
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    layer = nn.Linear(3, 3, bias=False).double()
    graph, steps = graphs(2, 0, 3), 40 if method == "rk4" else None
    weight = torch.randn(5, 3, dtype=torch.float64)

    def exact(x, matrix):
        ends = [x @ torch.linalg.matrix_exp(matrix.t() * t) for t in (0.5, 1.5)]
        return sum(((k + 1) * weight * end).sum() for k, end in enumerate(ends))

    found = odeint(
        lambda t, y: layer(y), x, graph, 0, 1.5, method, steps, 1e-9, 1e-9, times=(0.5, 1.5), gradient=gradient,
        parameters=layer,
    )  # fmt: skip
    loss = (weight * found[0]).sum() + (2 * weight * found[1]).sum()
    for one, other in zip(
        torch.autograd.grad(loss, (x, layer.weight)),
        torch.autograd.grad(exact(x, layer.weight), (x, layer.weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("gradient", ["through", "checkpoint", "adjoint"])
def test_a_graph_s_gradient_does_not_depend_on_its_batch_mates(gradient):
    x, n = uneven()

    def gradients(x, n, graph):
        x, n = x.requires_grad_(), n.requires_grad_()
        end = odeint(stiff_for_some, (x, n), graph, 0, 1, gradient=gradient)
        return torch.autograd.grad(end[0].square().sum() + end[1].sum(), (x, n))

    together, first = gradients(x.clone(), n.clone(), graphs(*SIZES)), 0
    for g, size in enumerate(SIZES):
        nodes = slice(first, first + size)
        alone = gradients(x[nodes].clone(), n[g : g + 1].clone(), graphs(size))
        assert torch.equal(alone[0], together[0][nodes]) and torch.equal(alone[1], together[1][g : g + 1])
        first += size


def test_a_differentiated_solve_has_the_bits_of_a_plain_one():
    x, n = uneven()
    plain = odeint(stiff_for_some, (x, n), graphs(*SIZES), 0, 1, times=(0.4, 1.0))
    for gradient in ("through", "checkpoint"):
        start = (x.clone().requires_grad_(), n)
        found = odeint(stiff_for_some, start, graphs(*SIZES), 0, 1, times=(0.4, 1.0), gradient=gradient)
        assert found[0].requires_grad and all(map(torch.equal, plain, found))


def test_the_adjoint_gradcheck_and_what_it_leaves_out():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    speed, unused = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 1.0))

    def solve(x, speed, unused):
        return odeint(
            lambda t, s: (torch.sin(s[0] * speed), s[1] * 0 + 1), (x, x.new_ones(2)),
            graphs(1, 2), 0, 1, rtol=1e-10, atol=1e-10, gradient="adjoint", parameters=[speed, unused],
        )  # fmt: skip

    assert torch.autograd.gradcheck(solve, (x, speed, unused), rtol=1e-3, atol=1e-5)


def test_transforms_see_equal_steps_and_refuse_to_choose_others():
    x, v = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)

    graph = graphs(1, 2)

    def solve(x, **options):
        return odeint(lambda t, y: torch.sin(y), x, graph, 0, 1, **options)

    _, found = torch.func.jvp(lambda x: solve(x, method="rk4", steps=4), (x,), (v,))
    e = 1e-6
    numeric = (solve(x + e * v, method="rk4", steps=4) - solve(x - e * v, method="rk4", steps=4)) / (2 * e)
    torch.testing.assert_close(found, numeric, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="steps="):
        torch.func.jvp(solve, (x,), (v,))


def test_gradient_through_a_solve():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    speed = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def solve(x, speed):
        return odeint(lambda t, s: (torch.sin(s[0]) * speed,), (x,), graphs(1, 2), 0, 1, "rk4", steps=3)[0]

    assert torch.autograd.gradcheck(solve, (x, speed))


def test_what_is_not_finite_is_named():
    def explodes(t, state):
        return (torch.where(state[0] > 5, torch.inf, state[0] * state[0]),)

    x = torch.tensor([[0.1], [0.1], [4.0]])
    for method in ("rk4", "dopri5"):
        with pytest.raises(GraphgenError, match=r"step \d+, t = 0(\.\d+)?, graphs 1:"):
            odeint(explodes, (x,), graphs(2, 1), 0, 1, method)
        with pytest.raises(GraphgenError, match=r"graphs 77:"):
            odeint(explodes, (x,), graphs(2, 1), 0, 1, method, graph_ids=torch.tensor([5, 77]))


def test_running_out_of_steps_is_named():
    with pytest.raises(GraphgenError, match=r"more than 3 steps for graph 0"):
        odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 100, "dopri5", max_steps=3)


def test_who_is_late_is_left_behind_too():
    def race(t, y):
        return torch.stack([y[:, 1], -y[:, 0]], 1) * torch.tensor([[1.0], [1000.0]])

    x = torch.ones(2, 2)
    end, failed = odeint(race, x, graphs(1, 1), 0, 1, max_steps=40, on_nonfinite="mask")
    assert [failure.graph for failure in failed] == [1] and end[0].isfinite().all() and end[1].isnan().all()
    assert failed[0].step == 40 and 0 < failed[0].time < 1


def test_a_wall_in_float32_is_found():
    def wall(t, y):
        return torch.where(y > 40, torch.nan, y)

    with pytest.raises(GraphgenError, match=r"not smooth, at step \d+, t = 0.28"):
        odeint(wall, torch.full((1, 1), 30.0), graphs(1), 0, 1)


def test_unknown_method():
    with pytest.raises(ValueError, match="rk4"):
        odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 1, "rk5")


def test_steps_are_reported():
    seen = []
    odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 1, "rk4", steps=4, on_step=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]


# ---- graphs that fail -----------------------------------------------------------------------------------------------


def spiteful(t, state):
    x = state[0]
    return (torch.where(x > 1.5, torch.nan, x * torch.sin(x)),)


@pytest.mark.parametrize("method", ["dopri5", "heun", "rk4", "euler"])
@pytest.mark.parametrize("differentiated", [False, True])
def test_a_graph_that_fails_is_left_behind(method, differentiated):
    x = torch.tensor([[0.1], [0.4], [1.4], [0.2], [-0.3]])
    graph, ids = graphs(2, 1, 2), torch.tensor([10, 11, 12])
    without = odeint(spiteful, (x[[0, 1, 3, 4]],), graphs(2, 2), 0, 1, method, times=(0.1, 0.9))[0]
    x.requires_grad_(differentiated)
    (found,), failed = odeint(spiteful, (x,), graph, 0, 1, method, times=(0.1, 0.9), on_nonfinite="mask", graph_ids=ids)
    assert torch.equal(found[:, [0, 1, 3, 4]], without)
    assert found[1, 2].isnan().all()
    assert [failure.graph for failure in failed] == [11]
    assert 0 <= failed[0].time < 0.5 and failed[0].step >= 0
    if differentiated:
        (gradient,) = torch.autograd.grad(found[:, [0, 1, 3, 4]].sum(), x)
        assert gradient[[0, 1, 3, 4]].isfinite().all() and gradient[2] == 0


def test_nobody_fails():
    end, failed = odeint(lambda t, y: -y, torch.ones(2, 1), graphs(2), 0, 1, on_nonfinite="mask")
    assert failed == [] and end.isfinite().all()


@pytest.mark.parametrize("gradient", ["through", "checkpoint", "adjoint"])
def test_a_solve_that_is_differentiated_names_what_is_not_finite(gradient):
    x = torch.tensor([[0.1], [1.4]], requires_grad=True)
    for method in ("rk4", "dopri5"):
        with pytest.raises(GraphgenError, match=r"step \d+, t = 0(\.\d+)?, graphs 1:"):
            odeint(spiteful, (x,), graphs(1, 1), 0, 1, method, gradient=gradient)


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "backwards"}, "gradient"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite"),
        ({"steps": 0}, "steps"),
        ({"first_step": 0.0}, "first_step"),
        ({"max_steps": 0}, "max_steps"),
        ({"times": (0.5, 0.2)}, "times"),
        ({"times": (-0.1, 0.2)}, "times"),
        ({"times": (0.5, 1.2)}, "times"),
        ({"times": ()}, "times"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        odeint(lambda t, y: y, torch.ones(2, 1), graphs(2), 0, 1, **options)


def test_shapes_that_do_not_fit():
    for state, field in (
        (torch.ones(3, 1), lambda t, y: y),
        ((torch.ones(2, 1), torch.ones(2, 1, dtype=torch.float64)), lambda t, y: y),
        (torch.ones(2, 1, dtype=torch.int64), lambda t, y: y),
        ((), lambda t, y: y),
        (torch.ones(2, 1), lambda t, y: y.double()),
        (torch.ones(2, 1), lambda t, y: y.squeeze(1)),
    ):
        with pytest.raises(ValueError, match="odeint"):
            odeint(field, state, graphs(2), 0, 1)


def test_states_of_any_shape_and_memory_layout():
    x = torch.randn(3, 2, 4, dtype=torch.float64).transpose(1, 2)
    one = torch.randn(3, dtype=torch.float64)
    found = odeint(lambda t, s: (-s[0], s[1] * 2), (x, one), graphs(1, 2), 0, 1, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[0], x * math.exp(-1), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found[1], one * math.exp(2), rtol=1e-7, atol=1e-7)
    assert odeint(lambda t, y: -y, x.bfloat16(), graphs(1, 2), 0, 1, rtol=1e-2, atol=1e-2).dtype is torch.bfloat16


def test_progress_of_adaptive_steps():
    seen = []
    odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 1, on_step=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 2
