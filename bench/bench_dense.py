"""linear, activation and softmax against torch.

python bench/bench_dense.py [--device cuda] [--threads 1] [--json out.json]
"""

from __future__ import annotations

import torch
from _bench import NODES, Case, arguments, run, sizes
from torch.nn import functional

from graphgen import ops
from graphgen.ops import reference

ACTIVATION_FLOPS = 25
SOFTMAX_FLOPS = 20


def cases_at(rows: int, features: int, device: str) -> list[Case]:
    x = torch.randn(rows, features, device=device)
    weight, bias = torch.randn(features, features, device=device), torch.randn(features, device=device)
    turned = weight.t().contiguous()
    out = torch.empty_like(x)
    shape = {"rows": rows, "F": features}
    both = 8 * rows * features
    leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias)]
    grad = torch.randn_like(x)

    def with_gradient(function, *inputs):
        return lambda: torch.autograd.grad(function(*inputs), inputs, grad)

    found = [
        Case(
            "linear forward",
            shape,
            {
                "graphgen": lambda: ops.linear(x, weight, bias),
                "reference": lambda: reference.linear(x, weight, bias),
                "torch linear": lambda: functional.linear(x, turned, bias),
                "torch linear, reused output": lambda: torch.addmm(bias, x, weight, out=out),
            },
            both + 4 * features * features,
            2 * rows * features * features,
        ),
        Case(
            "linear forward+backward",
            shape,
            {
                "graphgen": with_gradient(ops.linear, *leaves),
                "reference": with_gradient(reference.linear, *leaves),
            },
            2 * both,
            6 * rows * features * features,
        ),
    ]
    for kind, theirs in (("silu", functional.silu), ("tanh", torch.tanh)):
        found += [
            Case(
                f"activation {kind} forward",
                shape,
                {
                    "graphgen": lambda kind=kind: ops.activation(x, kind),
                    "reference": lambda kind=kind: reference.activation(x, kind),
                    "torch": lambda theirs=theirs: theirs(x),
                },
                both,
                ACTIVATION_FLOPS * rows * features,
            ),
            Case(
                f"activation {kind} forward+backward",
                shape,
                {
                    "graphgen": with_gradient(lambda t, kind=kind: ops.activation(t, kind), leaves[0]),
                    "torch": with_gradient(theirs, leaves[0]),
                },
                2 * both,
                2 * ACTIVATION_FLOPS * rows * features,
            ),
        ]
    return [
        *found,
        Case(
            "softmax forward",
            shape,
            {"graphgen": lambda: ops.softmax(x), "reference": lambda: reference.softmax(x)},
            both,
            SOFTMAX_FLOPS * rows * features,
        ),
        Case(
            "softmax forward+backward",
            shape,
            {
                "graphgen": with_gradient(ops.softmax, leaves[0]),
                "reference": with_gradient(reference.softmax, leaves[0]),
            },
            2 * both,
            2 * SOFTMAX_FLOPS * rows * features,
        ),
    ]


def main() -> None:
    chosen = arguments(__doc__.splitlines()[0])
    shapes = [(1024 * NODES, 64), (1024 * NODES, 5), (1024 * NODES, 128), (NODES, 64)]
    cases = [case for rows, features in sizes(chosen, shapes) for case in cases_at(rows, features, chosen.device)]
    run("dense", cases, chosen)


if __name__ == "__main__":
    main()
