"""A state of several tensors as the engine sees it, and as the field does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphgen.graph import GraphBatch
from graphgen.ops.stepping.attempts import Point

State = Tensor | tuple[Tensor, ...]
Derivative = Callable[[Tensor, Any], Any]  # (t [B], state) -> its derivative
Flat = list[Tensor]  # one [rows, features] per tensor of the state


class Layout:
    """Which tensors of a state have rows of nodes, and which a number per graph."""

    def __init__(self, state: State, graph: GraphBatch) -> None:
        self.graph, self.single = graph, isinstance(state, Tensor)
        parts = self.parts(state)
        if not parts:
            raise ValueError("odeint: the state has no tensors")
        nodes, graphs = graph.num_nodes, graph.num_graphs
        self.dtype = parts[0].dtype
        self.shapes = [part.shape for part in parts]
        self.per_graph = [shape == (graphs,) for shape in self.shapes]
        for k, part in enumerate(parts):
            if part.dtype is not self.dtype or not part.is_floating_point():
                raise ValueError(f"odeint: the state's tensors must share a floating dtype, got {part.dtype} for {k}")
            if not self.per_graph[k] and (part.dim() == 0 or part.shape[0] != nodes):
                raise ValueError(
                    f"odeint: tensor {k} of the state must be [{nodes}, ...], a row per node, or [{graphs}], a number "
                    f"per graph, got {list(part.shape)}"
                )
        of_nodes = graph.ptr.long()
        of_graphs = torch.arange(graphs + 1, device=graph.device)
        self.ptrs = [of_graphs if alone else of_nodes for alone in self.per_graph]

    def parts(self, state: State) -> tuple[Tensor, ...]:
        return (state,) if isinstance(state, Tensor) else tuple(state)

    def flat(self, state: State) -> Flat:
        return [flattened(part) for part in self.parts(state)]

    def given(self, flat: Sequence[Tensor]) -> State:
        parts = tuple(
            part if part.shape == shape else part.view(shape) for part, shape in zip(flat, self.shapes, strict=True)
        )
        return parts[0] if self.single else parts

    def point(self, flat: Flat) -> Point:
        return Point(flat, tuple(part.data_ptr() for part in flat), self.given(flat))

    def rows(self, per_graph: Tensor, k: int) -> Tensor:
        """A number per graph as a column that fits the rows of tensor k."""
        if not self.per_graph[k]:
            per_graph = per_graph.index_select(0, self.graph.batch)
        return per_graph.unsqueeze(1)

    def choose(self, graphs: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> Flat:
        """The graphs' new rows where `graphs` is True, and their old ones."""
        pairs = zip(new, old, strict=True)
        return [torch.where(self.rows(graphs, k), after, before) for k, (after, before) in enumerate(pairs)]


def flattened(part: Tensor) -> Tensor:
    flat = part.unsqueeze(1) if part.dim() == 1 else part if part.dim() == 2 else part.flatten(1)
    return flat.contiguous()


class Field:
    """A derivative that is asked for, and answers, in the engine's shapes; its answers are checked."""

    def __init__(self, f: Derivative, layout: Layout) -> None:
        self.f, self.layout = f, layout

    def __call__(self, t: Tensor, given: State) -> Flat:
        layout = self.layout
        slope = self.f(t, given)
        parts = (slope,) if layout.single else slope
        flat = []
        for shape, part in zip(layout.shapes, parts, strict=True):
            if part.shape != shape or part.dtype is not layout.dtype:
                raise ValueError(
                    f"odeint: the derivative of {layout.dtype} {list(shape)} came as {part.dtype} {list(part.shape)}"
                )
            flat.append(part if len(shape) == 2 and part.is_contiguous() else flattened(part))
        return flat
