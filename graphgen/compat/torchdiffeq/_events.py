"""What is left to torchdiffeq itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from graphgen.compat.torchdiffeq._odeint import odeint
from graphgen.compat.torchdiffeq._original import original


def odeint_event(
    func: Any, y0: Any, t0: Tensor, *, odeint_interface: Callable[..., Any] = odeint, **options: Any
) -> Any:
    """torchdiffeq.odeint_event: the time at which ``event_fn(t, y)`` is zero, and the states at its ends."""
    return original().odeint_event(func, y0, t0, odeint_interface=odeint_interface, **options)


def odeint_dense(func: Any, y0: Tensor, t0: Tensor, t1: Tensor, **options: Any) -> Callable[[Tensor], Tensor]:
    """torchdiffeq.odeint_dense: the solution from t0 to t1 as a function of time."""
    return original().odeint_dense(func, y0, t0, t1, **options)
