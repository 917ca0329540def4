"""Ordinary differential equations on a batch of graphs, each graph with its own time and step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphgen import ops
from graphgen.errors import GraphgenError
from graphgen.graph import GraphBatch

State = tuple[Tensor, ...]
Derivative = Callable[[Tensor, State], State]


def odeint(
    f: Derivative,
    state: State,
    graph: GraphBatch,
    t0: float,
    t1: float,
    method: str = "dopri5",
    steps: int = 20,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
    on_step: Callable[[float], None] | None = None,
) -> State:
    """Integrate d state / dt = f(t, state) from t0 to t1; backwards if t1 < t0. Differentiable through the steps.

    Args:
        f: ``(t [B], state) -> derivative``, one tensor per tensor of the state.
        state: tensors with one row per node ([N, ...]) or one number per graph ([B]).
        method: "rk4" (`steps` equal steps of the classical Runge-Kutta method) or "dopri5" (Dormand and Prince
            1980, adaptive: every graph has its own step size and error norm, so its result does not depend on its
            batch mates, bit for bit).
        rtol, atol: dopri5's tolerances on the root mean square error of a step, relative and absolute.
        max_steps: dopri5 gives up after this many attempts.
        on_step: called with the share of the way that the slowest graph has come, for a progress bar.

    Returns:
        The state at t1.

    Raises:
        GraphgenError: a value that is not finite, or dopri5 stuck or out of steps; names step, time and graphs.
        ValueError: an unknown method.
    """
    if method == "rk4":
        return _rk4(f, state, graph, t0, t1, steps, on_step)
    if method == "dopri5":
        return _dopri5(f, state, graph, t0, t1, rtol, atol, max_steps, on_step)
    raise ValueError(f"odeint: method must be 'rk4' or 'dopri5', got {method!r}")


def _times(t: float, state: State, graph: GraphBatch) -> Tensor:
    return torch.full((graph.num_graphs,), t, dtype=state[0].dtype, device=state[0].device)


def _rk4(f, state, graph, t0, t1, steps, on_step) -> State:
    h = (t1 - t0) / steps
    for step in range(steps):
        t = t0 + step * h
        k1 = f(_times(t, state, graph), state)
        k2 = f(_times(t + h / 2, state, graph), _move(state, k1, h / 2))
        k3 = f(_times(t + h / 2, state, graph), _move(state, k2, h / 2))
        k4 = f(_times(t + h, state, graph), _move(state, k3, h))
        total = tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        state = _move(state, total, h / 6)
        _check_finite(state, graph, step, _times(t + h, state, graph))
        if on_step is not None:
            on_step((step + 1) / steps)
    return state


def _move(state: State, direction: State, h: float) -> State:
    # Multiply, then add: torch's own scaled add rounds the ends of an array differently from its middle.
    return tuple(value + slope * h for value, slope in zip(state, direction, strict=True))


# The Dormand-Prince tableau; row s weighs the slopes before stage s, the last row is the fifth-order solution.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

# The next step is h times 0.9 error^(-1/5), within [0.2, 5], rounded down to a ratio of this table: a look-up gives
# the same bits in any batch, a vectorised power does not.
_RATIOS = [0.2 * 25 ** (k / 32) for k in range(33)]
_LIMITS = [(0.9 / ratio) ** 10 for ratio in _RATIOS]  # of the squared error
_SMALLEST_STEP = 1e-7  # of the whole way; below it the field is not a smooth finite function there


def _dopri5(f, state, graph, t0, t1, rtol, atol, max_steps, on_step) -> State:
    real = state[0]
    sign = 1.0 if t1 >= t0 else -1.0
    span = abs(t1 - t0)
    done = real.new_zeros(graph.num_graphs)  # way come, per graph
    h = torch.full_like(done, min(span, 0.05))
    ratios = real.new_tensor(_RATIOS)
    limits = real.new_tensor(_LIMITS[::-1])
    slope = f(t0 + sign * done, state)
    for step in range(max_steps):
        left = span - done
        running = left > 0
        if not bool(running.any()):
            return state
        h = torch.where(running, torch.minimum(h, left), torch.zeros_like(h))
        last = h >= left
        slopes = [slope]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            moved = _combine(state, slopes, weights, sign * h, graph)
            slopes.append(f(t0 + sign * (done + node * h), moved))
        error = _error_squared(state, moved, slopes, h, rtol, atol, graph)
        # A step so long that it overflowed is an error like another: it is tried again, shorter.
        error = torch.where(torch.isfinite(error), error, torch.inf)
        accepted = (error <= 1) & running
        stuck = running & ~accepted & (h <= span * _SMALLEST_STEP)
        if bool(stuck.any()):
            _raise_not_finite(stuck, step, t0 + sign * done)
        state = _choose(accepted, moved, state, graph)
        slope = _choose(accepted, slopes[-1], slope, graph)
        done = torch.where(accepted, torch.where(last, torch.full_like(done, span), done + h), done)
        place = ratios.numel() - 1 - torch.bucketize(error.detach(), limits).clamp(max=ratios.numel() - 1)
        proposed = h * torch.where(accepted, ratios[place], ratios[place].clamp(max=0.9))
        h = torch.where(running, proposed, h)
        if on_step is not None:
            on_step(float(done.min()) / span if span else 1.0)
    late = (done < span).nonzero().flatten().tolist()
    raise GraphgenError(
        f"dopri5 needs more than {max_steps} steps for graph {late[0]} ({len(late)} graphs in all), now at "
        f"t = {t0 + sign * float(done[late[0]]):.4g}: loosen rtol and atol, raise max_steps, or check the field"
    )


def _rows(per_graph: Tensor, like: Tensor, graph: GraphBatch) -> Tensor:
    """A number per graph, shaped to multiply `like`."""
    if like.dim() == 1 and like.shape[0] == graph.num_graphs:
        return per_graph
    return per_graph[graph.batch].view(-1, *(1,) * (like.dim() - 1))


def _per_node(value: Tensor) -> Tensor:
    """[N, numbers per node]"""
    return value.flatten(1) if value.dim() > 1 else value.unsqueeze(1)


def _combine(state: State, slopes: list[State], weights: tuple[float, ...], h: Tensor, graph: GraphBatch) -> State:
    moved = []
    for index, value in enumerate(state):
        total = sum(slope[index] * weight for slope, weight in zip(slopes, weights, strict=True) if weight)
        moved.append(value + total * _rows(h, value, graph))
    return tuple(moved)


def _error_squared(state, moved, slopes, h, rtol, atol, graph) -> Tensor:
    """[B] mean square of a step's error over its tolerance."""
    total = torch.zeros_like(h)
    count = torch.zeros_like(h)
    for index, value in enumerate(state):
        error = sum(slope[index] * weight for slope, weight in zip(slopes, _ERROR, strict=True) if weight)
        allowed = atol + rtol * torch.maximum(value.abs(), moved[index].abs())
        ratio = error * _rows(h, value, graph) / allowed
        square = ratio * ratio
        if value.dim() == 1 and value.shape[0] == graph.num_graphs:
            total, count = total + square, count + 1
        else:
            flat = _per_node(square)
            per_node = ops.linear(flat, flat.new_ones((flat.shape[1], 1)))
            total = total + ops.segment_reduce(per_node, graph.ptr).squeeze(1)
            count = count + graph.ptr.diff().to(count.dtype) * flat.shape[1]
    return total / count.clamp(min=1)


def _choose(accepted: Tensor, new: State, old: State, graph: GraphBatch) -> State:
    return tuple(torch.where(_rows(accepted, b, graph), a, b) for a, b in zip(new, old, strict=True))


def _check_finite(state: State, graph: GraphBatch, step: int, t: Tensor) -> None:
    for value in state:
        finite = torch.isfinite(value)
        if bool(finite.all()):
            continue
        if value.dim() == 1 and value.shape[0] == graph.num_graphs:
            _raise_not_finite(~finite, step, t)
        bad = torch.zeros(graph.num_graphs, dtype=torch.bool, device=value.device)
        bad[graph.batch[~_per_node(finite).all(1)].long()] = True
        _raise_not_finite(bad, step, t)


def _raise_not_finite(bad: Tensor, step: int, t: Tensor) -> None:
    graphs = bad.nonzero().flatten().tolist()
    shown = ", ".join(map(str, graphs[:5])) + (", ..." if len(graphs) > 5 else "")
    raise GraphgenError(
        f"odeint: not finite, or not smooth, at step {step}, t = {float(t[graphs[0]]):.4g}, graphs {shown}: "
        "look at the field there, or take smaller steps"
    )
