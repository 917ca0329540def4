"""What every test shares: random graphs, awkward memory layouts, thread counts, closeness."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager

import pytest
import torch
from hypothesis import settings

from graphgen import GraphBatch

# Its asserts explain themselves as those of a test do.
pytest.register_assert_rewrite("promises")

settings.register_profile("graphgen", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("graphgen")
# Alone with two threads, so that what is shared out among threads is; beside other workers with one.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def _make_graph(seed=0, sizes=None, edges_per_node=2.0, types=3, index=torch.int64, device="cpu") -> GraphBatch:
    """Random graphs, empty ones among them; isolated nodes, self-loops and duplicate edges happen by chance."""
    generator = torch.Generator().manual_seed(seed)
    if sizes is None:
        count = int(torch.randint(0, 7, (), generator=generator))
        sizes = torch.randint(0, 8, (count,), generator=generator).tolist()
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    pieces = [torch.empty(2, 0, dtype=torch.int64)]
    for first, size in zip(ptr.tolist(), sizes, strict=False):
        if size:
            edges = (2, round(edges_per_node * size))
            pieces.append(first + torch.randint(0, size, edges, generator=generator))
    edge_index = torch.cat(pieces, 1)
    # Out of order, so that the sort by target has something to do.
    edge_index = edge_index[:, torch.randperm(edge_index.shape[1], generator=generator)]
    kind = torch.randint(0, types, (edge_index.shape[1],), generator=generator) if types else None
    return GraphBatch.from_edge_index(
        edge_index.to(device, index),
        int(ptr[-1]),
        ptr=ptr,
        edge_attr=None if kind is None else kind.to(device),
    )


def _lay_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values of a matrix in another memory layout."""
    rows, columns = tensor.shape
    if layout == "transposed":
        return tensor.t().contiguous().t()
    if layout == "strided":
        roomy = tensor.new_full((2 * rows, columns + 3), torch.nan)
        roomy[::2, 1 : columns + 1] = tensor
        return roomy[::2, 1 : columns + 1]
    if layout == "expanded":
        return tensor[:1].expand(rows, columns) if rows else tensor
    return tensor


# A result may be off by this much of its size; bfloat16 by the one rounding at the end.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2.0**-8}


def _assert_near(actual: torch.Tensor, exact: torch.Tensor, scale: torch.Tensor | float = 1.0) -> None:
    """Near the float64 result; `scale` is what the sum's terms add up to without their signs."""
    assert actual.shape == exact.shape
    tolerance = _TOLERANCE[actual.dtype]
    room = tolerance * exact.abs() + min(tolerance, 1e-5) * torch.as_tensor(scale, device=exact.device)
    error = (actual.double() - exact).abs()
    assert bool((error <= room).all()), f"off by up to {float(error.max()):.3g}"


@contextmanager
def _threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_python(program: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=tempfile.gettempdir(),  # not where the sources would hide the installed package
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def make_graph():
    return _make_graph


@pytest.fixture(scope="session")
def lay_out():
    return _lay_out


@pytest.fixture(scope="session")
def assert_near():
    return _assert_near


@pytest.fixture(scope="session")
def threads():
    return _threads


@pytest.fixture(scope="session")
def run_python():
    return _run_python
