"""What a solve says of graphs that it could not carry on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphgen.errors import GraphgenError


class Failure(NamedTuple):
    """A graph whose solve ended early: its id, the step that was not finite (or never small enough), and its time."""

    graph: int
    step: int
    time: float


def failures(attempts: Any, graph_ids: Tensor | None) -> list[Failure]:
    """Of every graph that failed, in the order of the batch."""
    graphs = (attempts.failed_at >= 0).nonzero().flatten()
    ids = graphs if graph_ids is None else graph_ids[graphs]
    times = _times(attempts)[graphs]
    return [
        Failure(*found) for found in zip(ids.tolist(), attempts.failed_at[graphs].tolist(), times.tolist(), strict=True)
    ]


def raise_failures(attempts: Any, graph_ids: Tensor | None) -> None:
    found = failures(attempts, graph_ids)
    raise not_finite(found[0].step, found[0].time, [failure.graph for failure in found])


def not_finite(step: int, time: float, graphs: list[int]) -> GraphgenError:
    shown = ", ".join(map(str, graphs[:5])) + (", ..." if len(graphs) > 5 else "")
    return GraphgenError(
        f"odeint: not finite, or not smooth, at step {step}, t = {time:.4g}, graphs {shown}: look at the field there, "
        "take smaller steps, or let the others go on with on_nonfinite='mask'"
    )


def raise_late(attempts: Any, method: str, max_steps: int, graph_ids: Tensor | None) -> None:
    late = ((attempts.done < attempts.rules.span) & (attempts.failed_at < 0)).nonzero().flatten()
    first = int(late[0])
    name = first if graph_ids is None else int(graph_ids[first])
    raise GraphgenError(
        f"{method} needs more than {max_steps} steps for graph {name} ({late.numel()} graphs in all), now at "
        f"t = {float(_times(attempts)[first]):.4g}: loosen rtol and atol, raise max_steps, or check the field"
    )


def _times(attempts: Any) -> Tensor:
    rules = attempts.rules
    return rules.start + (-attempts.done if rules.backwards else attempts.done)


def nan_where_failed(layout: Any, attempts: Any, flat: list[Tensor]) -> list[Tensor]:
    """Nobody should take the state of a graph that failed for a result."""
    failed = attempts.failed_at >= 0
    return [part.masked_fill(layout.rows(failed, k), torch.nan) for k, part in enumerate(flat)]
