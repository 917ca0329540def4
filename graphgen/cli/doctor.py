"""graphgen doctor"""

from __future__ import annotations

import platform

import torch
import typer
from rich.table import Table

from graphgen.cli.common import EXIT_ERROR, show


def doctor() -> None:
    """Say what graphgen runs on here, and test its kernels against plain torch.

    Example: graphgen doctor
    """
    import rdkit

    import graphgen
    from graphgen import _C

    table = Table("", "", show_header=False, box=None)
    table.add_row("graphgen", graphgen.__version__)
    table.add_row("Python, torch, RDKit", f"{platform.python_version()}, {torch.__version__}, {rdkit.__version__}")
    table.add_row("CPU kernels", f"{_C.instruction_set()}, {torch.get_num_threads()} threads")
    table.add_row("CUDA kernels", "built" if _C.built_with_cuda() else "not built (GRAPHGEN_CUDA=ON pip install .)")
    table.add_row("CUDA device", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
    failures = [name for name, right in _self_test().items() if not right]
    table.add_row("self-test", f"FAILED: {', '.join(failures)}" if failures else "kernels agree with plain torch")
    show(table)
    raise typer.Exit(EXIT_ERROR if failures else 0)


def _self_test() -> dict[str, bool]:
    from graphgen import GraphBatch, ops

    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 50, (2, 200), generator=generator)
    kinds = torch.randint(0, 3, (200,), generator=generator)
    graph = GraphBatch.from_edge_index(edges, 50, edge_attr=kinds)
    x, bias = torch.randn(50, 33, generator=generator), torch.randn(3, 33, generator=generator)
    weight, heads = torch.randn(33, 17, generator=generator), torch.randn(50, 2, 5, generator=generator)
    calls = {
        "segment_reduce": (x, torch.tensor([0, 20, 20, 50])),
        "neighbor_reduce": (x, graph),
        "message_sum": (x, x, bias, graph),
        "scatter": (x, edges[0, :50], 0, 50),
        "gather": (x, edges[0]),
        "edge_softmax": (torch.randn(200, generator=generator), graph),
        "neighbor_attention": (heads, heads, heads, graph),
        "rbf_neighbor_sum": (x, graph, torch.linspace(0, 9, 5), torch.ones(5)),
        "linear": (x, weight),
        "activation": (x,),
        "softmax": (x,),
        "normal": (torch.tensor([0, 20, 50]), 7, 1),
    }
    return {
        name: torch.allclose(getattr(ops, name)(*call), getattr(ops.reference, name)(*call), rtol=1e-4, atol=1e-5)
        for name, call in calls.items()
    }
