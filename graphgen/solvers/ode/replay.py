"""The steps of a solve taken so that autograd sees them; how long they are is no longer a question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphgen import ops
from graphgen.ops.stepping import Tableau
from graphgen.solvers.ode.dense import Dense, Passed
from graphgen.solvers.ode.layout import Field, Flat, Layout
from graphgen.solvers.ode.march import Taken


def replay(
    field: Field,
    layout: Layout,
    tableau: Tableau,
    start: Flat,
    slope: Flat | None,
    log: Iterable[Taken],
    dense: Dense | None,
    remember: bool,
    on_state: Callable[[int, Taken, Flat], None] | None = None,
) -> Flat:
    """The state at the end of the steps of `log`; `on_state` is shown the one behind each.

    Of every step autograd keeps all intermediate values, or, unless `remember`, the state alone, and computes the
    others again when it comes back.
    """
    count = len(layout.shapes)
    y, known = start, slope
    for number, taken in enumerate(log):
        if taken.alive is not None:
            # Where a graph failed its field may be anything, whose derivative times 0 is not 0.
            y = layout.choose(taken.alive, y, [part.detach() for part in start])
            known = None
        passed = [] if dense is None else dense.passed(taken)
        arguments = (field, layout, tableau, taken, dense, passed, known is not None, *y, *(known or ()))
        if remember:
            results = _step(*arguments)
        else:
            results = checkpoint(_step, *arguments, use_reentrant=False, preserve_rng_state=False)
        pieces = [list(results[k : k + count]) for k in range(0, len(results), count)]
        y, known = pieces[0], pieces[1] if tableau.fsal else None
        for at, state in zip(passed, pieces[len(pieces) - len(passed) :], strict=True):
            assert dense is not None
            dense.keep(at, state)
        if on_state is not None:
            on_state(number, taken, y)
    return y


def _step(
    field: Field,
    layout: Layout,
    tableau: Tableau,
    taken: Taken,
    dense: Dense | None,
    passed: Sequence[Passed],
    knows_slope: bool,
    *tensors: Tensor,
) -> tuple[Tensor, ...]:
    """The state after a step; with fsal the slope there; and the states at the times passed."""
    count = len(layout.shapes)
    y = list(tensors[:count])
    slopes = [list(tensors[count:]) if knows_slope else field(taken.times[0], layout.given(y))]
    after = y
    for row, t in zip(tableau.a[1:], taken.times[1:], strict=True):
        after = _combine(layout, y, slopes, row, taken.h)
        slopes.append(field(t, layout.given(after)))
    if not tableau.fsal:
        after = _combine(layout, y, slopes, tableau.b, taken.h)
    states = [] if dense is None else [part for at in passed for part in dense.state(at, y, slopes)]
    return (*after, *(slopes[-1] if tableau.fsal else ()), *states)


def _combine(layout: Layout, y: Flat, slopes: Sequence[Flat], weights: Sequence[float], h: Tensor) -> Flat:
    return [
        ops.rk_combine(part, [slope[k] for slope in slopes], weights, h, ptr=layout.ptrs[k]) for k, part in enumerate(y)
    ]


def equal_steps(attempts: Any) -> Iterator[Taken]:
    """The log of a solve with equal steps, known before they are taken."""
    attempts.control(0, tried=False)
    for step in range(attempts.rules.equal_steps):
        time, h, before = attempts.time.clone(), attempts.h.clone(), attempts.done.clone()
        attempts.control(step)
        yield Taken(time.unbind(0), h, before, attempts.done.clone())
