"""Ordinary differential equations on a batch of graphs, each graph with its own time and step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as transforming

from graphgen.graph import GraphBatch
from graphgen.ops._op import differentiates
from graphgen.ops.stepping import METHODS, Tableau
from graphgen.ops.stepping.attempts import Rules, begin
from graphgen.solvers.ode.adjoint import solve_with_adjoint
from graphgen.solvers.ode.dense import Dense
from graphgen.solvers.ode.failure import (
    Failure,
    failures,
    nan_where_failed,
    not_finite,
    raise_failures,
    raise_late,
)
from graphgen.solvers.ode.first_step import first_lengths
from graphgen.solvers.ode.layout import Derivative, Field, Flat, Layout, State
from graphgen.solvers.ode.march import Progress, Step, Taken, march
from graphgen.solvers.ode.replay import equal_steps, replay

_DEFAULT_STEPS = 20
GRADIENTS = ("through", "checkpoint", "adjoint")


class Masked(NamedTuple):
    """A solve that went on without the graphs it could not carry: their states are NaN."""

    state: State
    failures: list[Failure]


def odeint(
    f: Derivative,
    state: State,
    graph: GraphBatch,
    t0: float,
    t1: float,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
    on_step: Callable[[float], None] | None = None,
    *,
    times: Sequence[float] | None = None,
    first_step: float | None = None,
    gradient: str = "through",
    parameters: Iterable[Tensor] | nn.Module = (),
    on_nonfinite: str = "raise",
    graph_ids: Tensor | None = None,
) -> Any:
    """Integrate d state / dt = f(t, state) from t0 to t1; backwards if t1 < t0.

    Every graph has its own steps and its own error norm, so its result does not depend on its batch mates, bit for bit,
    if its derivative does not. Memory and the cost of a step do not depend on the span.

    Args:
        f: ``(t [B], state) -> derivative``, shaped as the state. It gives a new tensor each time, and keeps none of
            its arguments: they are written over by later steps.
        state: one tensor, or a tuple; each has one row per node ([N, ...]) or one number per graph ([B]).
            float32, float64 or bfloat16 (whose times are float32), all of one kind.
        method: adaptive: "dopri5" (Dormand and Prince 1980), "tsit5" (Tsitouras 2011), "bosh3" (Bogacki and Shampine
            1989), "heun". Of equal steps: "euler", "midpoint", "rk4".
        steps: so many equal steps of any method. None: as many as the tolerances ask for, or 20 of a method that does
            not know its error. With `times`, the adjoint takes so many between two of them.
        rtol, atol: tolerances on the root mean square error of a step, relative and absolute.
        max_steps: an adaptive solve gives up after this many attempts, or where it would take far more.
        on_step: called with the share of the way that the slowest graph has come, for a progress bar.
        times: times from t0 to t1, in this order: the result has the states there, between steps by an interpolant of
            the method's order.
        first_step: length of the first adaptive step; None lets the field decide.
        gradient: "through" the steps, remembering all of each; "checkpoint", the same numbers, remembering the states
            between steps and computing the rest again; or by the "adjoint" equation, remembering the end alone, to the
            accuracy of the solve. The lengths of steps count as constants.
        parameters: of f, a module or tensors; the adjoint gives these gradients and no others (the other ways find what
            f depends on by themselves).
        on_nonfinite: "raise", or "mask": a graph that is not finite any more, or late, stops, the others go on, and the
            result is ``Masked(state, failures)``.
        graph_ids: [B], what errors and failures call the graphs; None for their place in the batch.

    Returns:
        The state at t1; with `times`, the states there, [T, ...] for each tensor.

    Raises:
        GraphgenError: a value that is not finite, or an adaptive solve stuck or out of steps; names step, time, graphs.
        ValueError: an argument out of range, or shapes that do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"odeint: method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    if gradient not in GRADIENTS:
        raise ValueError(f"odeint: gradient must be one of {', '.join(map(repr, GRADIENTS))}, got {gradient!r}")
    if on_nonfinite not in ("raise", "mask"):
        raise ValueError(f"odeint: on_nonfinite must be 'raise' or 'mask', got {on_nonfinite!r}")
    if steps is not None and steps < 1:
        raise ValueError(f"odeint: steps must be at least 1, got {steps}")
    if max_steps < 1:
        raise ValueError(f"odeint: max_steps must be at least 1, got {max_steps}")
    if first_step is not None and not first_step > 0:
        raise ValueError(f"odeint: first_step must be above 0, got {first_step}")
    tableau = METHODS[method]
    if steps is None:
        steps = 0 if tableau.error else _DEFAULT_STEPS
    solver = _Solver(
        graph, method, tableau, steps, rtol, atol, max_steps, on_step, first_step, on_nonfinite == "mask", graph_ids
    )
    with torch.cuda.device_of(graph.ptr):  # which prepared calls of the engine take for granted
        if gradient == "adjoint" and torch.is_grad_enabled():
            result = _by_adjoint(solver, f, state, t0, t1, times, parameters)
        else:
            result = solver.solve(f, state, t0, t1, times, remember=gradient == "through")
    return Masked(result, solver.failures) if on_nonfinite == "mask" else result


@dataclass
class _Solver:
    """The arguments of a solve that stay the same while an adjoint solves back and forth."""

    graph: GraphBatch
    method: str
    tableau: Tableau
    steps: int
    rtol: float
    atol: float
    max_steps: int
    on_step: Callable[[float], None] | None
    first_step: float | None
    masks: bool
    graph_ids: Tensor | None

    def __post_init__(self) -> None:
        self.failures: list[Failure] = []

    def solve(self, f: Derivative, state: State, t0: float, t1: float, times: Any, remember: bool) -> State:
        layout = Layout(state, self.graph)
        field, start, rules = Field(f, layout), layout.flat(state), self.rules(t0, t1)
        dense = None if times is None else Dense(layout, self.tableau, _offsets(times, t0, t1), start)
        if rules.span == 0 or self.graph.num_graphs == 0:
            end = start
        else:
            t = torch.full((self.graph.num_graphs,), t0, dtype=_time_type(start), device=start[0].device)
            slope = field(t, layout.given(start))
            if differentiates(*start, *slope):
                end = self._differentiable(field, layout, start, slope, rules, dense, remember)
            else:
                end = self._plain(field, layout, start, slope, rules, dense)
        if dense is None:
            return layout.given(end)
        # The last state as it is, not as the interpolant rounds it.
        for number, offset in enumerate(dense.offsets):
            if offset == rules.span:
                dense.values[number] = end
        parts = [part.view(part.shape[0], *shape) for part, shape in zip(dense.stacked(), layout.shapes, strict=True)]
        return parts[0] if layout.single else tuple(parts)

    def rules(self, t0: float, t1: float) -> Rules:
        # Where steps are a hundred times shorter than max_steps of them would allow, they will not do.
        smallest = 0.01 / self.max_steps
        return Rules(t0, abs(t1 - t0), t1 < t0, self.atol, self.rtol, self.steps, smallest=smallest)

    def progress(self) -> Progress:
        return Progress(
            self.max_steps,
            self.on_step,
            None if self.masks else lambda attempts: raise_failures(attempts, self.graph_ids),
            self._late,
        )

    def _late(self, attempts: Any) -> None:
        if not self.masks:
            raise_late(attempts, self.method, self.max_steps, self.graph_ids)
        attempts.failed_at[(attempts.done < attempts.rules.span) & (attempts.failed_at < 0)] = self.max_steps

    def attempts(self, field: Field, layout: Layout, start: Flat, slope: Flat, rules: Rules) -> Any:
        attempts = begin(self.tableau, list(zip(start, layout.ptrs, strict=True)), rules)
        if not self.steps and self.first_step is not None:
            attempts.length.fill_(self.first_step)
        elif not self.steps:
            order = self.tableau.error_order
            attempts.length.copy_(first_lengths(field, layout, start, slope, rules, order))
        return attempts

    @torch.no_grad()
    def _plain(
        self,
        field: Field,
        layout: Layout,
        start: Flat,
        slope: Flat,
        rules: Rules,
        dense: Dense | None,
        observe: Callable[[Step], None] | None = None,
    ) -> Flat:
        attempts = self.attempts(field, layout, start, slope, rules)

        def gather(step: Step) -> None:
            assert dense is not None
            for at in dense.passed(step.taken):
                dense.keep(at, dense.state(at, step.y.flat, step.slopes))

        watch = gather if dense is not None else observe
        end = march(field, layout, attempts, start, slope, self.progress(), watch)
        return self._without_failed(layout, attempts, end)

    def _without_failed(self, layout: Layout, attempts: Any, end: Flat) -> Flat:
        if not self.masks:
            return end
        found = failures(attempts, self.graph_ids)
        self.failures += found
        return nan_where_failed(layout, attempts, end) if found else end

    def _differentiable(
        self,
        field: Field,
        layout: Layout,
        start: Flat,
        slope: Flat,
        rules: Rules,
        dense: Dense | None,
        remember: bool,
    ) -> Flat:
        if self.steps and not self.masks:
            attempts = begin(self.tableau, list(zip(start, layout.ptrs, strict=True)), rules)
            on_state = None if transforming() else _Watch(self, layout, rules)
            log = equal_steps(attempts)
            return replay(field, layout, self.tableau, start, slope, log, dense, remember, on_state)
        if transforming():
            raise ValueError("odeint: a torch.func transform cannot choose steps; ask for equal ones with steps=")
        # First without a gradient, which says what the steps are, then these.
        taken: list[Taken] = []
        plain, known = [part.detach() for part in start], [part.detach() for part in slope]
        with torch.no_grad():
            attempts = self.attempts(field, layout, plain, known, rules)
            progress = self.progress()
            march(field, layout, attempts, plain, known, progress, lambda step: taken.append(step.taken))
        end = replay(field, layout, self.tableau, start, slope, taken, dense, remember)
        return self._without_failed(layout, attempts, end)


class _Watch:
    """Looks whether the states of a solve are finite, and tells how far it has come."""

    def __init__(self, solver: _Solver, layout: Layout, rules: Rules) -> None:
        self.solver, self.layout, self.rules = solver, layout, rules

    def __call__(self, number: int, taken: Taken, y: Flat) -> None:
        if not all(bool(torch.isfinite(part).all()) for part in y):
            self._raise(number, taken, y)
        if self.solver.on_step is not None:
            self.solver.on_step((number + 1) / self.rules.equal_steps)

    def _raise(self, number: int, taken: Taken, y: Flat) -> None:
        bad = torch.zeros(self.solver.graph.num_graphs, dtype=torch.bool, device=y[0].device)
        for part, alone in zip(y, self.layout.per_graph, strict=True):
            rows = ~torch.isfinite(part.detach()).all(1)
            bad[rows if alone else self.solver.graph.batch[rows].long()] = True
        graphs = bad.nonzero().flatten()
        ids = self.solver.graph_ids
        behind = float(taken.before[graphs[0]])
        time = self.rules.start + (-behind if self.rules.backwards else behind)
        raise not_finite(number, time, (graphs if ids is None else ids[graphs]).tolist())


def _by_adjoint(
    solver: _Solver, f: Derivative, state: State, t0: float, t1: float, times: Any, parameters: Any
) -> State:
    owned = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    tensors = tuple(owned)

    def solve(g: Derivative, parts: tuple[Tensor, ...], begins: float, ends: float, observe: Any) -> Flat:
        layout = Layout(parts, solver.graph)
        field, start, rules = Field(g, layout), layout.flat(parts), solver.rules(begins, ends)
        if rules.span == 0 or solver.graph.num_graphs == 0:
            return [part.clone() for part in start]
        t = torch.full((solver.graph.num_graphs,), begins, dtype=_time_type(start), device=start[0].device)
        with torch.no_grad():
            slope = field(t, layout.given(start))
        watch = None if observe is None else lambda step: observe(layout, step)
        return solver._plain(field, layout, start, slope, rules, None, watch)

    stops = [t1] if times is None else list(times)
    _offsets(stops, t0, t1)
    single, now, states = isinstance(state, Tensor), state, []
    for begins, ends in zip([t0, *stops], stops, strict=False):
        parts = solve_with_adjoint(f, now, begins, ends, tensors, solver.tableau.b, solve)
        now = parts[0] if single else parts
        states.append(parts)
    if times is None:
        return now
    stacked = tuple(torch.stack(part) for part in zip(*states, strict=True))
    return stacked[0] if single else stacked


def _offsets(times: Sequence[float], t0: float, t1: float) -> list[float]:
    """Distances of the times from the start, 0 to |t1 - t0|."""
    span, sign = abs(t1 - t0), -1.0 if t1 < t0 else 1.0
    offsets = [span if t == t1 else sign * (float(t) - t0) for t in times]
    if not offsets or any(b < a for a, b in pairwise(offsets)) or offsets[0] < 0:
        raise ValueError(f"odeint: times must go from {t0} towards {t1}, got {list(times)}")
    if offsets[-1] > span:
        raise ValueError(f"odeint: times must end at {t1} at the latest, got {list(times)}")
    return offsets


def _time_type(start: Flat) -> torch.dtype:
    return torch.float64 if start[0].dtype is torch.float64 else torch.float32
