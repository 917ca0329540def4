"""Fused solver steps against torchsde's step, a tuned in-place loop and plain torch.

    python bench/bench_stepping.py [--device cuda] [--threads 1] [--json out.json]

A state of (128, 45) is 128 molecules of 9 atoms with 5 features. Drift and diffusion are given, so that a step alone is
timed. The in-place loop is the best torch has: nothing is allocated.
"""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from _bench import NODES, Case, arguments, run, sizes

from graphgen import GraphBatch, ops
from graphgen.ops import reference
from graphgen.ops.stepping import DOPRI5, VP, PreparedStep
from graphgen.solvers import odeint, sdeint

SIZES = [(128, 5), (128, 38), (1024, 64), (1, 5)]  # molecules, features
DT, SIZE, STEPS = 0.01, 0.5, 100


def torchsde_step(x: torch.Tensor, drift: torch.Tensor):
    """One Euler step of torchsde, its Brownian interval among it; or why it is not here."""
    try:
        import torchsde
        from torchsde._core.base_sde import ForwardSDE
        from torchsde._core.methods.euler import Euler
    except ImportError as error:
        return None, f"not installed ({error.__class__.__name__}); pip install torchsde"

    class Given(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return drift

        def g(self, t, y):
            return size

    size = torch.full_like(x, SIZE)
    # Long, since an interval gives each piece of its path once as cheaply.
    brownian = torchsde.BrownianInterval(0.0, 1e4, size=tuple(x.shape), dtype=x.dtype, device=x.device, dt=DT)
    options = dict(dt=DT, adaptive=False, rtol=1e-5, atol=1e-4, dt_min=1e-5, options={})
    solver = Euler(sde=ForwardSDE(Given()), bm=brownian, **options)
    times = [k * DT for k in range(1, 10**6)]
    at = iter(range(10**6))

    def step() -> None:
        k = next(at)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solver.step(times[k], times[k + 1], x, ())

    return step, ""


def torchsde_solve(x: torch.Tensor, drift: torch.Tensor):
    """torchsde's own solve, of given span."""
    import torchsde

    class Given(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return drift

        def g(self, t, y):
            return size

    size, sde = torch.full_like(x, SIZE), Given()

    def solve(span: float) -> None:
        with torch.no_grad():
            torchsde.sdeint(sde, x, torch.tensor([0.0, span]), method="euler", dt=span / STEPS)

    return solve


def cases_at(count: int, features: int, device: str) -> list[Case]:
    ptr = NODES * torch.arange(count + 1, device=device)
    x, drift, diffusion = (torch.randn(NODES * count, features, device=device) for _ in range(3))
    out, scale = torch.empty_like(x), math.sqrt(DT) * SIZE
    beta = VP().beta(0.5) * DT
    shape = {"graphs": count, "d": NODES * features}
    dt = torch.full((count,), DT, device=device)
    stages = [torch.randn_like(x) for _ in DOPRI5.b]
    fused = dict(ptr=ptr, seed=1, out=out)
    sde_step, missing = torchsde_step(x.view(count, -1), drift.view(count, -1))
    state = x.clone()

    def plain_corrector() -> torch.Tensor:
        z = torch.randn_like(x)
        sizes = (z.view(count, -1).norm(dim=1) / drift.view(count, -1).norm(dim=1) * 0.2).square() * 2
        size = sizes.repeat_interleave(NODES).unsqueeze(1)
        return x + size * drift + (2 * size).sqrt() * z

    def plain_dopri5() -> torch.Tensor:
        result = x + DT * sum(w * k for w, k in zip(DOPRI5.b, stages, strict=True) if w)
        error = DT * sum(w * k for w, k in zip(DOPRI5.error, stages, strict=True) if w)
        tolerance = 1e-4 + 1e-4 * torch.maximum(x.abs(), result.abs())
        return (error / tolerance).view(count, -1).square().mean(1).sqrt()

    with torch.no_grad():
        prepared, numbers, noise = PreparedStep(x, ptr, seed=1), itertools.count(), torch.empty_like(x)
    euler = {
        "prepared": lambda: prepared(next(numbers), (x, drift), (1.0, DT), scale, None, out),
        "graphgen": lambda: ops.euler_maruyama_step(x, drift, DT, SIZE, **fused),
        "in-place loop": lambda: state.add_(drift, alpha=DT).add_(noise.normal_(), alpha=scale),
        "plain torch": lambda: x + drift * DT + scale * torch.randn_like(x),
    }
    if (count, features) == SIZES[0]:  # it makes the noise of the contract in plain torch, hundreds of times slower
        euler["reference"] = lambda: reference.euler_maruyama_step(x, drift, DT, SIZE, ptr=ptr, seed=1)
    if sde_step is not None:
        euler["torchsde"] = sde_step
    weights = (DOPRI5.b, DOPRI5.error)

    def solve(span: float = 1.0) -> None:
        with torch.no_grad():
            sdeint(lambda t, x: drift, SIZE, x, ptr, 0.0, span, STEPS, seed=1)

    def loop() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                state.add_(drift, alpha=DT).add_(noise.normal_(), alpha=scale)

    solvers = {"graphgen": solve, "graphgen, ten times the span": lambda: solve(10.0), "in-place loop": loop}
    if sde_step is not None:
        solvers["torchsde's steps"] = lambda: [sde_step() for _ in range(STEPS)]
        theirs = torchsde_solve(x.view(count, -1), drift.view(count, -1))
        solvers |= {"torchsde": lambda: theirs(1.0), "torchsde, ten times the span": lambda: theirs(10.0)}
    cases = {
        "euler_maruyama_step": (euler, 4),
        f"sdeint, {STEPS} Euler steps": (solvers, 4 * STEPS),
        "euler_maruyama_step, new output": (
            {"graphgen": lambda: ops.euler_maruyama_step(x, drift, DT, SIZE, ptr=ptr, seed=1)}
            | {"plain torch": euler["plain torch"]},
            4,
        ),
        "euler_maruyama_step, diagonal, dt per graph": (
            {
                "graphgen": lambda: ops.euler_maruyama_step(x, drift, dt, diffusion, **fused),
                "plain torch": lambda: x + drift * DT + diffusion * (0.1 * torch.randn_like(x)),
            },
            5,
        ),
        "reverse_sde_step, ancestral": (
            {
                "graphgen": lambda: ops.reverse_sde_step(x, drift, 0.5, DT, VP(), predictor="ancestral", **fused),
                "plain torch": lambda: (x + beta * drift) / math.sqrt(1 - beta) + math.sqrt(beta) * torch.randn_like(x),
            },
            4,
        ),
        "annealed_langevin_step": (
            {
                "graphgen": lambda: ops.annealed_langevin_step(x, drift, 0.2, **fused),
                "plain torch": plain_corrector,
            },
            4,
        ),
        "rk_combine_with_error, dopri5": (
            {
                "graphgen": lambda: ops.rk_combine_with_error(
                    x, stages, *weights, DT, ptr=ptr, atol=1e-4, rtol=1e-4, out=out
                ),
                "plain torch": plain_dopri5,
            },
            10,
        ),
    }
    skipped = {"torchsde": missing} if missing else {}
    # Every input read once and the output written, which a copy counts twice.
    return [
        Case(name, shape, candidates, bytes=arrays * x.numel() * 4, skipped=skipped)
        for name, (candidates, arrays) in cases.items()
    ]


def adaptive_solve(count: int, device: str) -> Case:
    """dopri5 on oscillators. The field alone, as often as our solve asks it, is what neither solver can save."""
    x, ptr = torch.randn(NODES * count, 5, device=device), NODES * torch.arange(count + 1, device=device)
    graph = GraphBatch.from_edge_index(ptr.new_zeros(2, 0), NODES * count, ptr=ptr)
    span, asked = 10.0, 0

    def field(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return x.roll(1, 1) - x.roll(-1, 1)

    def solve() -> None:
        with torch.no_grad():
            odeint(field, x, graph, 0.0, span, rtol=1e-5, atol=1e-5)

    solve()
    evaluations, skipped = asked, {}
    candidates = {"graphgen": solve, "its field alone": lambda: [field(x, x) for _ in range(evaluations)]}
    try:
        from torchdiffeq import odeint as theirs
    except ImportError as error:
        skipped = {"torchdiffeq": f"not installed ({error.__class__.__name__}); pip install torchdiffeq"}
    else:
        times = torch.tensor([0.0, span], device=device)
        candidates["torchdiffeq"] = lambda: theirs(field, x, times, rtol=1e-5, atol=1e-5, method="dopri5")
    shape = {"graphs": count, "d": 45, "steps": (evaluations - 1) // 6}
    return Case("odeint, dopri5", shape, candidates, skipped=skipped)


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    cases = [case for size in sizes(chosen, SIZES) for case in cases_at(*size, chosen.device)]
    solves = [adaptive_solve(count, chosen.device) for count in sizes(chosen, [1, 128])]
    run("stepping", cases + solves, chosen)


if __name__ == "__main__":
    main()
