"""What tests draw: numbers from a seed, ragged rows, one graph out of a batch, and the strategies to draw them by."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st

from graphgen import GraphBatch

FLOATS = [torch.float32, torch.float64, torch.bfloat16]
INTEGERS = [torch.int32, torch.int64]
SEEDS = st.integers(0, 10**6)
LAYOUTS = st.sampled_from(["contiguous", "transposed", "strided", "expanded"])
any_float = st.sampled_from(FLOATS)
any_integer = st.sampled_from(INTEGERS)


def randn(*shape, seed, dtype=torch.float64):
    """The same numbers in any dtype, rounded."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leaf(*shape, seed):
    return randn(*shape, seed=seed).requires_grad_()


def randint(low, high, *shape, seed, dtype=torch.int64):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def ragged(seed, index=torch.int64):
    """Boundaries that leave rows out at both ends, and the number of rows."""
    generator = torch.Generator().manual_seed(seed)
    before, count, after = torch.randint(0, 6, (3,), generator=generator).tolist()
    lengths = torch.randint(0, 9, (count,), generator=generator)
    ptr = torch.cat([torch.tensor([before]), before + lengths.cumsum(0)])
    return ptr.to(index), int(ptr[-1]) + after


def alone(graph, g):
    """Graph g of a batch as a batch of its own, and where its nodes and its edges are in the batch."""
    nodes = slice(int(graph.ptr[g]), int(graph.ptr[g + 1]))
    edges = slice(int(graph.rowptr[nodes.start]), int(graph.rowptr[nodes.stop]))
    one = GraphBatch.from_edge_index(
        graph.edge_index[:, edges] - nodes.start,
        nodes.stop - nodes.start,
        edge_attr=None if graph.edge_attr is None else graph.edge_attr[edges],
    )
    return replace(one, num_edge_types=graph.num_edge_types), nodes, edges
