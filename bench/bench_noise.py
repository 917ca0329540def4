"""normal, uniform and rademacher against torch's generators.

    python bench/bench_noise.py [--device cuda] [--threads 1] [--json out.json]

The peers fill a tensor from a generator's state: their numbers depend on what was drawn before, ours on nothing.
"""

from __future__ import annotations

import torch
from _bench import NODES, SIZES, Case, arguments, run, sizes

from graphgen import ops
from graphgen.ops import reference


def cases_at(count: int, features: int, device: str) -> list[Case]:
    ptr = NODES * torch.arange(count + 1, device=device)
    rows = NODES * count
    out = torch.empty(rows, features, device=device)
    shape = {"graphs": count, "rows": rows, "F": features}
    peers = {
        "normal": {"torch.randn": lambda: torch.randn_like(out), "normal_, reused output": lambda: out.normal_()},
        "uniform": {"torch.rand": lambda: torch.rand_like(out), "uniform_, reused output": lambda: out.uniform_()},
        "rademacher": {"torch bernoulli": lambda: out.bernoulli_(0.5).mul_(2).sub_(1)},
    }
    return [
        Case(
            name,
            shape,
            {
                "graphgen": lambda name=name: getattr(ops, name)(ptr, features, 1),
                **theirs,
                "reference": lambda name=name: getattr(reference, name)(ptr, features, 1),
            },
            # The output alone, counted twice: a copy that moves as much also only writes half of it.
            bytes=8 * out.numel(),
        )
        for name, theirs in peers.items()
    ]


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    run("noise", [case for size in sizes(chosen, SIZES) for case in cases_at(*size, chosen.device)], chosen)


if __name__ == "__main__":
    main()
