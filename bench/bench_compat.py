"""The calls of torch_scatter and torchsde on the drop-ins and on the libraries themselves.

python bench/bench_compat.py [--device cuda] [--threads 1] [--json out.json]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _bench import SIZES, Case, arguments, molecules, run, sizes, torch_scatter
from bench_message_passing import cases_of
from torch import Tensor

from graphgen import GraphBatch
from graphgen.compat import torch_scatter as drop_in
from graphgen.compat import torchsde as sde_drop_in

SEVERAL_PASSES = ("scatter_softmax", "scatter_logsumexp")


def calls(graph: GraphBatch, features: int) -> dict[str, tuple[Callable[..., Tensor], Tensor]]:
    """What PyTorch Geometric asks of torch_scatter, as (function of the library and a tensor, that tensor)."""
    n, e = graph.num_nodes, graph.num_edges
    messages = torch.randn(e, features, device=graph.device, requires_grad=True)
    nodes = torch.randn(n, features, device=graph.device, requires_grad=True)
    # Edges as a data set has them, in no order of their targets, and sorted.
    index, ptr = graph.target[torch.randperm(e, device=graph.device)], graph.rowptr
    found: dict[str, tuple[Callable[..., Tensor], Tensor]] = {}
    for reduce in ("sum", "mean", "max", "mul"):
        found[f"scatter {reduce}"] = (lambda lib, x, r=reduce: lib.scatter(x, index, 0, None, n, r), messages)
    for reduce in ("sum", "mean", "max"):
        found[f"segment_csr {reduce}"] = (lambda lib, x, r=reduce: lib.segment_csr(x, ptr, reduce=r), messages)
    found["gather_csr"] = (lambda lib, x: lib.gather_csr(x, ptr), nodes)
    found["gather_coo"] = (lambda lib, x: lib.gather_coo(x, graph.target), nodes)
    found["scatter_softmax"] = (lambda lib, x: lib.scatter_softmax(x, index, 0, n), messages)
    found["scatter_logsumexp"] = (lambda lib, x: lib.scatter_logsumexp(x, index, 0, None, n), messages)
    return found


class GivenSDE(torch.nn.Module):
    """Drift and diffusion that cost nothing, so that steps alone are timed."""

    noise_type = "diagonal"

    def __init__(self, y: Tensor, sde_type: str) -> None:
        super().__init__()
        self.sde_type = sde_type
        self.drift, self.diffusion = torch.randn_like(y), torch.rand_like(y)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.drift

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.diffusion


SOLVES = [("euler", "ito"), ("milstein", "ito"), ("srk", "ito"), ("heun", "stratonovich"), ("midpoint", "stratonovich")]


def sde_cases(device: str) -> list[Case]:
    """Solves of 100 steps. torchsde's cost 100 times as much over [0, 1] as over [0, 10], its issue 109: those once."""
    try:
        import torchsde
    except ImportError as error:
        torchsde, missing = None, f"not installed ({error.__class__.__name__}); pip install torchsde"
    cases = []
    for batch, d in [(32, 3), (128, 45), (128, 342)]:
        for method, sde_type in SOLVES:
            for span in (10.0, 1.0) if (method, d) == ("euler", 45) else (10.0,):
                y = torch.ones(batch, d, device=device)
                sde, ts = GivenSDE(y, sde_type), torch.tensor([0.0, span], device=device)

                def solve(library, sde=sde, y=y, ts=ts, method=method, dt=span / 100) -> Tensor:
                    with torch.no_grad():
                        return library.sdeint(sde, y, ts, method=method, dt=dt)

                case = Case(
                    f"sdeint {method} [0, {span:.0f}]",
                    {"B": batch, "d": d},
                    {"graphgen": lambda solve=solve: solve(sde_drop_in)},
                )
                if torchsde:
                    case.candidates["torchsde"] = lambda solve=solve: solve(torchsde)
                else:
                    case.skipped = {"torchsde": missing}
                cases.append(case)
    return cases


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    library, why = torch_scatter()
    cases: list[Case] = []
    for count, features in sizes(chosen, SIZES):
        graph = molecules(count, chosen.device)
        n, e = graph.num_nodes, graph.num_edges
        shape = {"N": n, "E": e, "F": features}
        for name, (function, leaf) in calls(graph, features).items():
            ways = {"graphgen": (lambda x, f=function: f(drop_in, x), [leaf])}
            if library:
                ways["torch_scatter"] = (lambda x, f=function: f(library, x), [leaf])
            # The tensor, the result and the index once each; no floor for what reads them several times.
            moved = 0 if name in SEVERAL_PASSES else 4 * features * (n + e) + 8 * (n if "csr" in name else e)
            cases += cases_of(name, shape, ways, {"forward": moved, "forward+backward": 2 * moved}, 0)
    for case in cases:
        if why:
            case.skipped = {**case.skipped, "torch_scatter": why}
    run("compat", cases + sde_cases(chosen.device), chosen)


if __name__ == "__main__":
    main()
