"""Solver steps on CUDA: the bits of the CPU, and what only a device can do."""

import pytest
import torch

from graphgen import _C, ops
from graphgen.ops.stepping import DOPRI5, VP

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and _C.built_with_cuda()), reason="needs a CUDA device and an engine built for it"
)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def batch(sizes, features, dtype):
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    generator = torch.Generator().manual_seed(len(sizes))
    arrays = [torch.randn(int(ptr[-1]), features, generator=generator).to(dtype) for _ in range(8)]
    return ptr, torch.arange(len(sizes)) * 2**33 + 7, arrays


def on_cuda(value):
    if isinstance(value, torch.Tensor):
        return value.cuda()
    return [on_cuda(part) for part in value] if isinstance(value, list) else value


def both(function, *arguments, **options):
    host = function(*arguments, **options)
    device = function(*map(on_cuda, arguments), **{name: on_cuda(value) for name, value in options.items()})
    return zip(*((parts if isinstance(parts, tuple) else (parts,)) for parts in (host, device)), strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", [1, 5, 64])
@pytest.mark.parametrize("sizes", [[], [0], [9] * 300, [3, 0, 0, 5000, 1, 17, 0], [1] * 1000])
def test_steps_have_the_bits_of_the_cpu(dtype, features, sizes):
    ptr, ids, (x, f, g, *stages) = batch(sizes, features, dtype)
    dt = (ids % 5 + 1) / 100
    options = dict(ptr=ptr, graph_ids=ids, seed=2**63 + 5)
    calls = [
        (ops.euler_maruyama_step, (x, f, 0.1, 0.5), options),
        (ops.euler_maruyama_step, (x, f, dt, g), options | dict(keep=x[:, 0] > 0)),
        (ops.euler_maruyama_step, (x, f, dt, g), options | dict(keep=x > 0, step=torch.tensor(2**33 + 3))),
        (ops.rk_combine, (x, [f, g, *stages], DOPRI5.b, 0.1), dict(ptr=ptr)),
    ]
    for function, arguments, chosen in calls:
        for host, device in both(function, *arguments, **chosen):
            assert torch.equal(host, device.cpu())
    arguments = (x, [f, g, *stages], DOPRI5.b, DOPRI5.error, dt)
    for host, device in both(ops.rk_combine_with_error, *arguments, ptr=ptr, atol=1e-2, rtol=1e-2):
        torch.testing.assert_close(host, device.cpu(), rtol=1e-6, atol=0)
    for norm in ("graph", "batch") if sizes else ():
        for host, device in both(ops.annealed_langevin_step, x, f, 0.1, norm=norm, **options):
            torch.testing.assert_close(host, device.cpu(), rtol=1e-2 if dtype is torch.bfloat16 else 1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", [1, 4])
def test_pairs_have_the_bits_of_the_cpu(dtype, features):
    ptr, ids, (x, f, g, *_) = batch([size**2 for size in (3, 0, 70, 1, 38)], features, dtype)
    options = dict(ptr=ptr, graph_ids=ids, symmetric=True)
    for host, device in both(ops.euler_maruyama_step, x, f, 0.1, g, **options):
        assert torch.equal(host, device.cpu())
    for draw in (ops.normal, ops.uniform, ops.rademacher):
        for host, device in both(draw, ptr, features, 1, graph_ids=ids, dtype=dtype, symmetric=True):
            assert torch.equal(host, device.cpu())
    for host, device in both(ops.annealed_langevin_step, x, f, 0.1, **options):
        torch.testing.assert_close(host, device.cpu(), rtol=1e-2 if dtype is torch.bfloat16 else 1e-4, atol=1e-4)


def test_a_captured_step_draws_anew_when_replayed():
    ptr = (9 * torch.arange(101)).cuda()
    x, step = torch.zeros(900, 5, device="cuda"), torch.zeros((), dtype=torch.int64, device="cuda")

    def advance():
        ops.reverse_sde_step(x, -x, 0.5, 0.01, VP(), ptr=ptr, seed=1, step=step, out=x)
        step.add_(1)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        advance()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        advance()
    x.zero_()
    step.zero_()
    for _ in range(5):
        graph.replay()
    expected = torch.zeros(900, 5)
    for k in range(5):
        expected = ops.reverse_sde_step(expected, -expected, 0.5, 0.01, VP(), ptr=ptr.cpu(), seed=1, step=k)
    assert torch.equal(x.cpu(), expected)
    assert int(step) == 5
