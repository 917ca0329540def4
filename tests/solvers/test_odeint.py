import math

import pytest
import torch

from graphgen import GraphBatch, GraphgenError, ops
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

    end, change = odeint(f, (x, x.new_zeros(3)), graph, 0.0, 1.0, method, steps=50 if method == "rk4" else None, rtol=1e-9, atol=1e-9)
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


def test_rk4_is_of_fourth_order():
    graph = graphs(1)
    start = (torch.tensor([[1.0, 0.5]], dtype=torch.float64),)
    exact = odeint(pendulum, start, graph, 0, 2, "rk4", steps=4000)[0]
    errors = [float((odeint(pendulum, start, graph, 0, 2, "rk4", steps=n)[0] - exact).norm()) for n in (40, 80)]
    assert abs(math.log2(errors[0] / errors[1]) - 4) < 0.2


def test_dopri5_keeps_its_tolerance_and_goes_backwards():
    graph = graphs(2)
    start = torch.tensor([[1.0, 0.5], [2.9, 0.0]], dtype=torch.float64)
    there = odeint(pendulum, (start,), graph, 0, 2, "dopri5", rtol=1e-10, atol=1e-10)[0]
    exact = odeint(pendulum, (start,), graph, 0, 2, "rk4", steps=4000)[0]
    assert float((there - exact).abs().max()) < 1e-8
    back = odeint(pendulum, (there,), graph, 2, 0, "dopri5", rtol=1e-10, atol=1e-10)[0]
    assert float((back - start).abs().max()) < 1e-8


def test_adaptive_steps_of_a_graph_do_not_depend_on_its_batch_mates():
    def stiff_for_some(t, state):
        x = state[0]
        return (ops.activation(x * 3, "tanh") - x * x * x,)

    x = torch.randn(23, 5) * torch.logspace(-1, 0.7, 23).unsqueeze(1)
    sizes = (3, 1, 0, 7, 4, 8)
    together = odeint(stiff_for_some, (x,), graphs(*sizes), 0, 1)[0]
    first = 0
    for size in sizes:
        alone = odeint(stiff_for_some, (x[first : first + size],), graphs(size), 0, 1)[0]
        assert torch.equal(alone, together[first : first + size])
        first += size


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
        with pytest.raises(GraphgenError, match=r"step \d+, t = 0\.\d+, graphs 1:"):
            odeint(explodes, (x,), graphs(2, 1), 0, 1, method, steps=20)


def test_running_out_of_steps_is_named():
    with pytest.raises(GraphgenError, match=r"more than 3 steps for graph 0"):
        odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 100, "dopri5", max_steps=3)


def test_unknown_method():
    with pytest.raises(ValueError, match="rk4"):
        odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 1, "euler")


def test_steps_are_reported():
    seen = []
    odeint(pendulum, (torch.ones(1, 2),), graphs(1), 0, 1, "rk4", steps=4, on_step=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]
