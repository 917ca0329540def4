"""Which calls run here, and such a call in the engine's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforming
from torch.autograd import forward_ad

from graphgen.compat.torchdiffeq._methods import ADAPTIVE, FIXED
from graphgen.ops import _native

_CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")
_DTYPES = (torch.float32, torch.float64)
_ADAPTIVE_OPTIONS = {
    "min_step",
    "max_step",
    "first_step",
    "safety",
    "ifactor",
    "dfactor",
    "max_num_steps",
    "dtype",
    "norm",
}
_FIXED_OPTIONS = {"step_size", "grid_constructor", "norm"}


class PieceNorm:
    """The largest of the root mean squares of a state's pieces, those that count.

    Args:
        sizes: elements of each piece, in order.
        counted: how many of them count.
        join: what makes the state's pieces of the argument.
    """

    def __init__(self, sizes: list[int], counted: int, join: Callable[[Any], list[Tensor]]) -> None:
        self.sizes, self.counted, self.join = sizes, counted, join

    def __call__(self, state: Any) -> Tensor:
        pieces = self.join(state)[: self.counted]
        return torch.stack([piece.abs().pow(2).mean().sqrt() for piece in pieces]).max()


def runs_here(func: Any, y0: Any, t: Any, rtol: Any, atol: Any, method: str | None, options: Any) -> bool:
    """Whether a call is one of those that graphgen's steps serve; it is well formed then."""
    method = "dopri5" if method is None else method
    known = _ADAPTIVE_OPTIONS if method in ADAPTIVE else _FIXED_OPTIONS if method in FIXED else None
    if known is None or transforming() or forward_ad._current_level >= 0 or torch.compiler.is_compiling():
        return False
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not options.keys() <= known or not _options_fit(options):
        return False
    parts = (y0,) if isinstance(y0, Tensor) else y0
    if not isinstance(parts, tuple) or not parts or not all(_is_plain(part, parts[0]) for part in parts):
        return False
    if not all(part.numel() for part in parts) or any(hasattr(func, name) for name in _CALLBACKS):
        return False
    return _is_number(rtol) and _is_number(atol) and _is_grid(t, parts[0])


def _options_fit(options: Mapping[str, Any]) -> bool:
    if "norm" in options and not isinstance(options["norm"], PieceNorm):
        return False
    if options.get("step_size") is not None and options.get("grid_constructor") is not None:
        return False
    numbers = [value for name, value in options.items() if name not in ("norm", "dtype", "grid_constructor")]
    return options.get("dtype", torch.float64) is torch.float64 and all(
        value is None or _is_number(value) for value in numbers
    )


def _is_plain(part: Any, first: Tensor) -> bool:
    return (
        type(part) in (Tensor, torch.nn.Parameter)
        and part.dtype in _DTYPES
        and part.dtype is first.dtype
        and part.device == first.device
        and _native.runs(part)
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and not value.requires_grad
    return isinstance(value, int | float)


def _is_grid(t: Any, like: Tensor) -> bool:
    if not isinstance(t, Tensor) or t.dim() != 1 or not t.is_floating_point() or t.device != like.device:
        return False
    if t.requires_grad and torch.is_grad_enabled():
        return False
    points = t.tolist()
    return bool(points) and (all(a < b for a, b in pairwise(points)) or all(a > b for a, b in pairwise(points)))


class Problem:
    """A field and its state as one column [n, 1], whose pieces are the tensors that the caller has.

    With `shaped` a single tensor stays as it is instead: autograd pays for every view.
    """

    def __init__(self, func: Callable[..., Any], y0: Tensor | tuple[Tensor, ...]) -> None:
        self.func, self.single = func, isinstance(y0, Tensor)
        parts = (y0,) if isinstance(y0, Tensor) else y0
        self.shapes = [part.shape for part in parts]
        self.sizes = [part.numel() for part in parts]
        self.shaped = False
        self.start = self._column(parts)
        self.dtype, self.device = self.start.dtype, self.start.device

    def _column(self, parts: Any) -> Tensor:
        if self.single:
            return parts[0].reshape(-1, 1)
        return torch.cat([part.reshape(-1) for part in parts]).unsqueeze(1)

    def keep_shape(self, *columns: Tensor) -> list[Tensor]:
        """From now on a single tensor stays as it is, as do these columns."""
        self.shaped = self.single
        shape = self.shapes[0] if self.shaped else (-1, 1)
        self.start = self.start.view(shape)
        return [column.view(shape) for column in columns]

    def slope(self, t: Tensor, column: Tensor) -> Tensor:
        """The field at a time and a state."""
        value = self.func(t, self.given(column))
        if not self.single:
            return self._column(value)
        if value.shape != self.shapes[0] or value.dtype is not self.dtype:  # as adding it to the state would do
            value = value.to(self.dtype).expand(self.shapes[0])
        return value if self.shaped else value.reshape(-1, 1)

    def given(self, column: Tensor) -> Any:
        if self.single:
            return column if self.shaped else column.view(self.shapes[0])
        pieces = column.view(-1).split(self.sizes)
        return tuple(piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True))

    def solution(self, columns: list[Tensor]) -> Any:
        """[T, ...] of each tensor."""
        stacked = torch.stack(columns)
        if self.shaped:
            return stacked
        stacked = stacked.squeeze(2)
        if self.single:
            return stacked.view(len(columns), *self.shapes[0])
        pieces = stacked.split(self.sizes, 1)
        return tuple(piece.reshape(len(columns), *shape) for piece, shape in zip(pieces, self.shapes, strict=True))
