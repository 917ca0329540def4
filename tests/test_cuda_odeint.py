"""Solves of ODEs on CUDA: the steps of the CPU."""

import pytest
import torch

from graphgen import _C, GraphBatch, GraphgenError
from graphgen.ops.stepping import METHODS, TABLEAUS
from graphgen.solvers import odeint

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and _C.built_with_cuda()), reason="needs a CUDA device and an engine built for it"
)
SIZES = (3, 1, 0, 7, 4)


def graphs(device):
    ptr = torch.tensor([0, *SIZES]).cumsum(0)
    edges = torch.zeros(2, 0, dtype=torch.int64, device=device)
    return GraphBatch.from_edge_index(edges, sum(SIZES), ptr=ptr.to(device))


def field(t, state):
    x, n = state
    return -x * x * x + x, t * n - n


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_a_solve_is_that_of_the_cpu(method, dtype):
    x, n = torch.randn(15, 3, dtype=dtype), torch.randn(5, dtype=dtype)
    options = {"method": method, "steps": None if method in TABLEAUS else 100, "times": (0.3, 1.0), "first_step": 0.01}
    host = odeint(field, (x, n), graphs("cpu"), 0, 1, **options)
    device = odeint(field, (x.cuda(), n.cuda()), graphs("cuda"), 0, 1, **options)
    for one, other in zip(host, device, strict=True):
        torch.testing.assert_close(other.cpu(), one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_what_is_not_finite_is_named_and_masked(method):
    x = torch.ones(15, 1)
    x[4:11] = 30.0

    def explodes(t, y):
        return torch.where(y > 40, torch.nan, y)

    start, graph = x.cuda(), graphs("cuda")
    with pytest.raises(GraphgenError, match="graphs 3:"):
        odeint(explodes, start, graph, 0, 1, method)
    end, failed = odeint(explodes, start, graph, 0, 1, method, on_nonfinite="mask")
    assert [failure.graph for failure in failed] == [3] and end[4:11].isnan().all()
    assert torch.allclose(end[:4], torch.e * start[:4], rtol=1e-3) and end[11:].isfinite().all()


@pytest.mark.parametrize("gradient", ["through", "checkpoint", "adjoint"])
def test_gradients_are_those_of_the_cpu(gradient):
    x = torch.randn(15, 3, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        start = x.to(device).requires_grad_()
        weight = torch.eye(3, dtype=torch.float64, device=device).requires_grad_()
        end = odeint(
            lambda t, y, w=weight: torch.tanh(y @ w), start, graphs(device), 0, 1, rtol=1e-9, atol=1e-9,
            gradient=gradient, parameters=[weight],
        )  # fmt: skip
        found.append([part.cpu() for part in torch.autograd.grad(end.square().sum(), (start, weight))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
