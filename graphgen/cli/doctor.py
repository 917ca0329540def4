"""graphgen doctor"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import typer
from rich.table import Column, Table

from graphgen.cli.common import EXIT_ERROR, plain, show

_EXTRAS = {"pandas": "tables", "pyarrow": "tables", "fcd": "fcd", "torch_geometric": "pyg", "torch_scatter": "peers"}


def doctor() -> None:
    """Say what graphgen runs on here, and test its kernels against plain torch.

    Exit code 1 means that a kernel disagrees.

    Example: graphgen doctor
    """
    import rdkit

    import graphgen
    from graphgen import _C
    from graphgen.molecules import datasets

    table = Table("", Column(overflow="fold"), show_header=False, box=None)
    table.add_row("graphgen", f"{graphgen.__version__} in {plain(Path(graphgen.__file__).parent)}")
    table.add_row("Python, torch, RDKit", f"{platform.python_version()}, {torch.__version__}, {rdkit.__version__}")
    table.add_row("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")
    table.add_row("CPU kernels", f"{_C.instruction_set()}, {torch.get_num_threads()} threads")
    table.add_row("CUDA kernels", "built" if _C.built_with_cuda() else "not built (GRAPHGEN_CUDA=ON pip install .)")
    table.add_row("CUDA device", _cuda_device())
    extras = ", ".join(_installed(module, name) for module, name in _EXTRAS.items())
    table.add_row("extras", extras)
    table.add_row("cache", plain(datasets.cache_folder()))
    table.add_row("GRAPHGEN_DATA", plain(os.environ.get("GRAPHGEN_DATA", "not set")))
    table.add_row("data sets", ", ".join(f"{name} {_place(name)}" for name in [*datasets.SOURCES, *datasets.FILES]))
    wrong = False
    for device in ["cpu", *["cuda"] * (_C.built_with_cuda() and torch.cuda.is_available())]:
        failures = [name for name, right in _self_test(device).items() if not right]
        wrong = wrong or bool(failures)
        verdict = f"FAILED: {', '.join(failures)}" if failures else "kernels agree with plain torch"
        table.add_row(f"self-test, {device}", verdict)
    show(table)
    raise typer.Exit(EXIT_ERROR if wrong else 0)


def _cuda_device() -> str:
    if not torch.cuda.is_available():
        return "none" if torch.version.cuda else "none (this torch is built without CUDA)"
    free, total = torch.cuda.mem_get_info()
    name, capability = torch.cuda.get_device_name(), "".join(map(str, torch.cuda.get_device_capability()))
    return f"{name}, sm_{capability}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def _installed(module: str, extra: str) -> str:
    try:
        return f"{module} {metadata.version(module)}"
    except metadata.PackageNotFoundError:
        return f"no {module} (extra {extra})"


def _place(name: str) -> str:
    from graphgen.molecules import datasets

    if name == "nci":
        return "(with RDKit)"
    files = [source.file for source in datasets.FILES.get(name, ())] or [datasets.SOURCES[name].file]
    return "(here)" if all(map(datasets.find_file, files)) else f"(graphgen data {name} --download)"


def _self_test(device: str = "cpu") -> dict[str, bool]:
    from graphgen import GraphBatch, ops

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    edges = torch.randint(0, 50, (2, 200), generator=generator)
    kinds = torch.randint(0, 3, (200,), generator=generator)
    graph = GraphBatch.from_edge_index(edges, 50, edge_attr=kinds).to(device)
    edges = edges.to(device)
    ptr = torch.tensor([0, 20, 20, 50], device=device)
    x, bias, weight, heads = random(50, 33), random(3, 33), random(33, 17), random(50, 2, 5)
    calls = {
        "segment_reduce": (x, ptr),
        "neighbor_reduce": (x, graph),
        "message_sum": (x, x, bias, graph),
        "scatter": (x, edges[0, :50], 0, 50),
        "gather": (x, edges[0]),
        "edge_softmax": (random(200), graph),
        "neighbor_attention": (heads, heads, heads, graph),
        "rbf_neighbor_sum": (x, graph, torch.linspace(0, 9, 5, device=device), torch.ones(5, device=device)),
        "linear": (x, weight),
        "activation": (x,),
        "softmax": (x,),
        "normal": (ptr, 7, 1),
        "uniform": (ptr, 7, 1),
    }
    agree = {
        name: _near(getattr(ops, name)(*call), getattr(ops.reference, name)(*call)) for name, call in calls.items()
    }

    def gradient(space: Any) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(
            space.message_sum(leaf, leaf, bias, graph).square().sum(), leaf, create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), leaf)[0]

    trace = ops.divergence(lambda y: ops.message_sum(y, y, bias, graph), x, graph, method="exact")[1]
    agree["second derivative"] = _near(gradient(ops), gradient(ops.reference))
    agree["divergence"] = _near(trace, _dense_trace(lambda y: ops.reference.message_sum(y, y, bias, graph), x))
    return agree


def _dense_trace(f: Any, x: torch.Tensor) -> torch.Tensor:
    jacobian = torch.autograd.functional.jacobian(f, x)
    return jacobian.reshape(x.numel(), x.numel()).trace().reshape(1)


def _near(ours: torch.Tensor, plain_torch: torch.Tensor) -> bool:
    return torch.allclose(ours, plain_torch, rtol=1e-4, atol=1e-4 * float(plain_torch.abs().max()))
