"""Brownian motion on a GPU has the bits of the CPU's; skipped without one."""

import pytest
import torch

from graphgen import _C, ops
from graphgen.compat import torchsde

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and _C.built_with_cuda()), reason="no CUDA device, or an engine without CUDA"
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("depth", [0, 5, 30])
def test_the_bits_are_those_of_the_cpu(dtype, depth):
    sizes = torch.arange(60) % 13
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    ids = torch.arange(60) * 2**33 + 5
    per_graph = torch.linspace(-1.0, 2.0, 60, dtype=torch.float64)
    for features in (1, 5, 32):
        for start, end in ((0.0, 0.75), (0.1, 2.3), (0.31, 0.32), (per_graph, 0.4), (per_graph, per_graph.flip(0))):
            options = dict(cell=0.75, depth=depth, dtype=dtype, integral=True)
            here = ops.brownian_increment(ptr, features, start, end, 9, graph_ids=ids, **options)
            there = ops.brownian_increment(ptr.cuda(), features, start, end, 9, graph_ids=ids.cuda(), **options)
            for a, b in zip(here, there, strict=True):
                assert torch.equal(a.view(torch.uint8), b.cpu().view(torch.uint8))


def test_a_solve_of_the_drop_in_runs_there():
    class Geometric:
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return -0.3 * y

        def g(self, t, y):
            return 0.2 * y

    found = []
    for device in ("cpu", "cuda"):
        y0 = torch.ones(16, 9, device=device)
        for method in ("euler", "milstein", "srk"):
            bm = torchsde.BrownianInterval(
                0.0, 1.0, size=(16, 9), device=device, entropy=4, levy_area_approximation="space-time"
            )
            found.append(torchsde.sdeint(Geometric(), y0, [0.0, 0.5, 1.0], bm=bm, method=method, dt=0.1).cpu())
    for here, there in zip(found[:3], found[3:], strict=True):
        assert torch.allclose(here, there, atol=1e-5)
