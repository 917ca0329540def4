"""The noise source: every random number is a pure function of (seed, stream, graph id, step, element).

Contract, version 1 (csrc/noise/philox.h has the layout): Philox4x32-10 with key = seed and counter = (block, step,
graph id, stream). An element's number is its row-major place within its own graph's [nodes, features] block, so the
same graph gets the same bits for any batch size, batch order, number of threads, chunking or device. Values are
defined in float32; other dtypes hold the same value, converted.

Brownian motions as functions of time are a part of the contract: :func:`graphgen.ops.brownian_increment`.

Give every use of noise its own stream: the same counter read twice gives the same bits twice.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from graphgen import _C
from graphgen.ops import _native
from graphgen.ops.reference import noise as reference

CONTRACT_VERSION = 1


class Stream(IntEnum):
    """Who reads which stream; a part of the contract, so numbers are added and never reused."""

    PRIOR = 0  # the start of a sample
    PROBE = 1  # trace estimators
    DEQUANTISE = 2  # labels to points of the label's cell
    PATH = 3  # the noise end of a training pair
    TIME = 4  # the time at which a training pair is looked at
    ORDER = 5  # which molecules a training batch holds
    STEP = 6  # steps of a solver on node features
    CORRECTOR = 7  # Langevin corrections of node features
    PAIR_STEP = 8  # steps of a solver on pair features
    PAIR_CORRECTOR = 9  # Langevin corrections of pair features
    WALK = 10  # random directions in a latent space
    LABEL = 11  # labels drawn from their probabilities
    AREA = 12  # what a step's time integral of Brownian motion needs beside its increment, on node features
    PAIR_AREA = 13  # the same on pair features
    CHOICE = 14  # one of several candidates
    SIZE = 15  # how many atoms a molecule has
    BROWNIAN = 16  # Brownian motions as functions of time, on node features
    BROWNIAN_KEY = 17  # not for elements: the seeds within a Brownian motion's cells, see csrc/noise/brownian.h
    PAIR_PRIOR = 18  # the start of a sample on pairs
    PAIR_PATH = 19  # the noise end of a training pair on pairs
    CONDITION = 20  # which properties a training molecule is shown with
    PLACE = 21  # a random order of a molecule's atoms
    PART = 22  # how much of a training molecule is decided
    PART_PLACE = 23  # and which atoms
    EXAMPLE = 24  # which examples a step of a federation looks at
    UPLOAD = 25  # noise on what a client of a federation uploads
    SHIFT = 26  # noise that makes a shifted domain


def _draw(
    distribution: str,
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int,
    step: int,
    graph_ids: Tensor | None,
    dtype: torch.dtype,
    symmetric: bool,
) -> Tensor:
    reference.check(ptr, features, seed, stream, step, graph_ids)
    rows = int(ptr[-1])
    out = torch.empty((rows, features), dtype=dtype, device=ptr.device)
    if not _native.runs(out):
        return getattr(reference, distribution)(ptr, features, seed, stream, step, graph_ids, dtype, symmetric)
    ptr = ptr.long().contiguous()
    graph_ids = None if graph_ids is None else graph_ids.long().contiguous()
    _native.call(
        _C.noise,
        out,
        ptr.data_ptr(),
        _native.address(graph_ids),
        0,
        seed,
        stream,
        step,
        symmetric,
        out.data_ptr(),
        ptr.numel() - 1,
        rows,
        features,
        _native.DISTRIBUTIONS[distribution],
        _native.DTYPES[dtype],
    )
    return out


def normal(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    symmetric: bool = False,
) -> Tensor:
    """Standard normals for the nodes of a batch.

    Args:
        ptr: [B + 1] node boundaries of the graphs (``graph.ptr``); the result is on its device.
        features: F, numbers per node.
        seed: 0 <= seed < 2^64.
        stream: which use of noise this is, 0 <= stream < 2^16.
        step: which step of it, 0 <= step < 2^32.
        graph_ids: [B] int64 in [0, 2^48), what identifies each graph over all batches; None for 0, 1, 2, ...
        dtype: float32, float64 or bfloat16.
        symmetric: the rows of a graph of n nodes are its n * n ordered pairs (i, j), row i * n + j, and both orders
            of a pair get the same numbers, those of element i (i + 1) / 2 + j for j <= i. ``ptr`` bounds these rows.

    Returns:
        [N, F].

    Raises:
        IndexError: a ptr that does not start at 0 or falls, or of symmetric noise a number of rows that is no square
            (CPU; a CUDA call does not wait to look).
        ValueError: a number out of these ranges (graph ids: CPU).
    """
    return _draw("normal", ptr, features, seed, stream, step, graph_ids, dtype, symmetric)


def uniform(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    symmetric: bool = False,
) -> Tensor:
    """Multiples of 2^-24 uniform in [0, 1); arguments as :func:`normal`."""
    return _draw("uniform", ptr, features, seed, stream, step, graph_ids, dtype, symmetric)


def rademacher(
    ptr: Tensor,
    features: int,
    seed: int,
    stream: int = 0,
    step: int = 0,
    graph_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    symmetric: bool = False,
) -> Tensor:
    """Fair signs, -1 or +1; arguments as :func:`normal`."""
    return _draw("rademacher", ptr, features, seed, stream, step, graph_ids, dtype, symmetric)
